// The connection of sandboxctl, at a server of HTTP/2 that says what it may send.

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { HostService } from "../../../../gen/sandboxd/v1/host_service_pb.ts";
import { createConnection } from "../../../../src/cli/ctl/connection.ts";

test("its session may be sent far more at once than Node lets it by itself, from the first call on", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ctl-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "socket");
  const server = createServer();
  const rooms: number[] = [];
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream: ServerHttp2Stream) => {
    // what the client says of its window comes right behind
    stream.session?.ping(() => {
      rooms.push(stream.session?.state.remoteWindowSize ?? 0);
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto", "grpc-status": "0" });
      stream.end();
    });
  });
  server.listen(path);
  await once(server, "listening");
  onTestFinished(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  const host = createConnection({ kind: "unix", name: "test", path }).client(HostService);
  for (let call = 0; call < 2; call += 1) await host.getHost({}).catch(() => undefined);
  expect(rooms).toEqual([4 * 1024 * 1024, 4 * 1024 * 1024]);
});
