// The few calls to the Engine API that setting up needs, over its unix socket. The daemon has its own client.
import { request } from "node:http";

/**
 * One call: resolves to `{ status, body }`, body as text. `body` may be a Buffer or a readable stream. Fails when
 * nothing answers within `timeoutMs` of silence.
 */
export function call(socket, method, path, { body, contentType, timeoutMs = 10_000 } = {}) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-type": contentType };
    const outgoing = request({ socketPath: socket, method, path, headers }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }),
      );
    });
    outgoing.setTimeout(timeoutMs, () =>
      outgoing.destroy(new Error(`${method} ${path}: silence for ${timeoutMs} ms`)),
    );
    outgoing.on("error", reject);
    if (typeof body?.pipe === "function") {
      body.on("error", (error) => outgoing.destroy(error));
      body.pipe(outgoing);
    } else {
      outgoing.end(body);
    }
  });
}

/** Whether an engine answers on the socket. */
export async function answers(socket) {
  try {
    const { status } = await call(socket, "GET", "/_ping", { timeoutMs: 3_000 });
    return status === 200;
  } catch {
    return false;
  }
}

/** As call, for JSON: resolves to the parsed body, undefined when there is none; a status of 400 or more is an error. */
export async function callJson(socket, method, path, value) {
  const body = value === undefined ? undefined : Buffer.from(JSON.stringify(value));
  const answer = await call(socket, method, path, {
    body,
    contentType: "application/json",
    timeoutMs: 30_000,
  });
  if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${answer.body.trim()}`);
  return answer.body === "" ? undefined : JSON.parse(answer.body);
}
