// The client of bench/ports.ts for much: SOCKET. For each message, a request to ForwardPort in base64, it says how many bytes came behind the headers. A
// program of its own: every 16 KiB are new memory to Node's HTTP/2, for which V8 collects now and then, and the heap of the benchmark is large.

import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { bodyBytes } from "./answer.ts";
import { forward } from "./forward.ts";

const mebibyte = 1_024 ** 2;

const [path = ""] = process.argv.slice(2);
const session = connectHttp2("http://sandboxd", {
  createConnection: () => connect(path),
  settings: { initialWindowSize: mebibyte },
});
// as sandboxctl: all streams together have 64 KiB else, whatever one of them may have
session.once("connect", () => session.setLocalWindowSize(4 * mebibyte));
process.on("message", async (request: string) => {
  const count = await bodyBytes((onPiece) => forward(session, Buffer.from(request, "base64"), onPiece));
  process.send?.(count);
});
process.once("disconnect", () => session.destroy());
