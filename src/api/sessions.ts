// HTTP/2 sessions: pinged so that dead peers are found, closed when nobody has used them for long.
import type { Http2Session } from "node:http2";
import type { ApiLimits } from "./limits.ts";
import type { ConnectionRefusal } from "./ports.ts";

/** Tends a session until it closes; its timers end with it. */
export function tendSession(
  session: Http2Session,
  limits: ApiLimits,
  refused: (why: ConnectionRefusal) => void,
): void {
  let streams = 0;
  let idleSinceMs = performance.now();
  let dead: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    if (streams === 0 && performance.now() - idleSinceMs >= limits.idleTimeoutMs) {
      refused("idle");
      session.close();
    } else {
      ping();
    }
  }, limits.pingIntervalMs);
  function ping(): void {
    if (session.destroyed || dead !== undefined) {
      return;
    }
    dead = setTimeout(() => {
      refused("dead");
      session.destroy();
    }, limits.pingTimeoutMs);
    session.ping(() => {
      clearTimeout(dead);
      dead = undefined;
    });
  }
  session.on("stream", (stream) => {
    streams += 1;
    stream.once("close", () => {
      streams -= 1;
      idleSinceMs = performance.now();
    });
  });
  session.once("close", () => {
    clearInterval(timer);
    clearTimeout(dead);
  });
}
