// A real browser on the preview. SANDBOXD_TEST_BROWSER names a Chromium; the test command looks for one (tools/lib/browser.mjs).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PortService } from "../../gen/sandboxd/v1/port_service_pb.ts";
import { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { eventually, type LocalHost, mebibyte, startHost, tenant } from "../harness/sandboxes.ts";
import { createAuthority } from "../unit/api/certificates.ts";

const browser = process.env["SANDBOXD_TEST_BROWSER"];
/** Not below localhost, whose names are sites of their own to a browser: these are one. */
const domain = "preview.test";
const obstacle =
  engineObstacle ??
  (browser === undefined
    ? "there is no Chromium: install chromium-headless-shell, or name one by SANDBOXD_TEST_BROWSER"
    : undefined);

/** What its scripts see, and what they can do to another sandbox, which they tell the server. */
const page = `<!doctype html><body><script>
const asked = new URLSearchParams(location.search);
const socket = (url) => new Promise((done) => {
  const opened = new WebSocket(url);
  opened.onmessage = ({ data }) => done(data);
  opened.onerror = () => done("refused");
});
(async () => {
  const other = asked.get("other");
  // as a person does: with the token first, by the cookie alone then
  open(asked.get("link"));
  await new Promise((done) => setTimeout(done, 4000));
  open(other);
  await new Promise((done) => setTimeout(done, 4000));
  localStorage.setItem("seen", "1");
  const seen = {
    data: (await (await fetch("/data.txt")).text()).trim(),
    cookie: document.cookie,
    token: asked.has("sandboxd_token"),
    socket: await socket(asked.get("socket")),
    withoutToken: await socket(asked.get("socket").split("?")[0]),
    cors: await fetch(other, { credentials: "include" }).then(({ status }) => status, () => "blocked"),
    noCors: await fetch(other, { credentials: "include", mode: "no-cors" }).then(({ type }) => type, () => "blocked"),
  };
  await fetch("/cgi-bin/report", { method: "POST", body: JSON.stringify(seen) });
})();
</script>`;

/** As RFC 6455 has it, in a shell: the handshake, and one frame with a text. */
const socketServer = `#!/bin/sh
cr=$(printf '\\r')
while read -r line; do
  line=\${line%"$cr"}
  case "$line" in Sec-WebSocket-Key:*) key=\${line#*: } ;; "") break ;; esac
done
hex=$(printf '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11' "$key" | sha1sum | cut -c1-40 | sed 's/../\\\\x&/g')
accept=$(printf "$hex" | base64)
printf 'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: %s\\r\\n\\r\\n' "$accept"
printf '\\201\\005hello'
exec sleep 5
`;

const hit = "#!/bin/sh\necho hit >> /tmp/hits\nprintf 'Content-Type: text/html\\r\\n\\r\\nhit'\n";

const report =
  "#!/bin/sh\ncat > /tmp/report.part; mv /tmp/report.part /tmp/report\nprintf 'Content-Type: text/html\\r\\n\\r\\n'\n";

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const serving = `
  mkdir -p /tmp/www/cgi-bin; : > /tmp/hits
  printf %s ${quoted(page)} > /tmp/www/index.html
  echo inside > /tmp/www/data.txt
  printf %s ${quoted(hit)} > /tmp/www/cgi-bin/hit
  printf %s ${quoted(socketServer)} > /tmp/socket
  printf %s ${quoted(report)} > /tmp/www/cgi-bin/report
  chmod +x /tmp/www/cgi-bin/* /tmp/socket
  httpd -p 127.0.0.1:8080 -h /tmp/www
  nc -ll -p 8081 -e /tmp/socket &
  exec sleep 1000`;

describe.skipIf(obstacle !== undefined)(
  `a browser on the preview (${obstacle ?? "engine"})`,
  () => {
    let host: LocalHost;
    let ports: Client<typeof PortService>;
    const profile = mkdtempSync(join(tmpdir(), "browser-"));
    beforeAll(async () => {
      const authority = await createAuthority(profile, "authority");
      const { certFile: certificate, keyFile: key } = await authority.issue("preview", {
        ...{ subject: "/CN=preview", names: `DNS:*.${domain}`, usage: "serverAuth" },
      });
      const preview = { address: "127.0.0.1:0", domain, tls: { certificate, key } };
      host = await startHost({ config: { preview } });
      ports = host.daemon.client(PortService);
      await host.tenants.putTenant({ tenant, network: { forwardPorts: [{ first: 8080, last: 8081 }] } });
      const roomy = { cpuMillis: 1_000n, memoryBytes: BigInt(64 * mebibyte), pids: 64n };
      for (const id of ["mine", "other"]) await host.run(id, serving, roomy);
    });
    afterAll(async () => {
      await host?.daemon.cleanup();
      rmSync(profile, { recursive: true, force: true });
    });

    /** Has a page open until something is so. */
    async function withPage(url: string, until: () => Promise<boolean>): Promise<void> {
      const options = [
        ...["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        ...[`--host-resolver-rules=MAP *.${domain} 127.0.0.1`, "--ignore-certificate-errors"],
      ];
      const running = spawn(
        browser ?? "",
        [...options, "--disable-popup-blocking", `--user-data-dir=${profile}`, url],
        { stdio: "ignore", detached: true },
      );
      try {
        await eventually(`what ${url} does`, until, (isSo) => isSo);
      } finally {
        // it ends its own processes first
        const ended = once(running, "exit");
        running.kill("SIGTERM");
        await Promise.race([ended, sleep(5_000, undefined, { ref: false })]);
        if (running.exitCode === null && running.signalCode === null)
          process.kill(-(running.pid ?? 0), "SIGKILL");
        await ended;
      }
    }

    async function fileOf(sandboxId: string, path: string): Promise<string> {
      let text = "";
      for await (const { event } of host.daemon
        .client(ProcessService)
        .startProcess({ sandboxId, command: ["cat", path] }))
        if (event?.event.case === "stdout") text += Buffer.from(event.event.value).toString();
      return text;
    }
    const hits = async (id: string) => (await fileOf(id, "/tmp/hits")).split("\n").length - 1;

    test("shows a page with its scripts and WebSockets, and none of them reaches another sandbox", async () => {
      const [mine, socket, other] = [
        await ports.createPreview({ sandboxId: "mine", port: 8080 }),
        await ports.createPreview({ sandboxId: "mine", port: 8081 }),
        await ports.createPreview({ sandboxId: "other", port: 8080 }),
      ];
      const hitUrl = new URL("/cgi-bin/hit", other.url);
      const asked = new URL(mine.url);
      asked.searchParams.set("socket", socket.url.replace("https:", "wss:"));
      asked.searchParams.set("other", hitUrl.href);
      asked.searchParams.set("link", `${hitUrl.href}?sandboxd_token=${other.token}`);
      await withPage(asked.href, async () => (await fileOf("mine", "/tmp/report")) !== "");
      expect(JSON.parse(await fileOf("mine", "/tmp/report"))).toEqual({
        data: "inside",
        cookie: "",
        token: false,
        socket: "hello",
        withoutToken: "refused",
        cors: "blocked",
        // an answer that it cannot read: the preview's refusal
        noCors: "opaque",
      });
      // the two that a person opened
      expect(await hits("other")).toBe(2);
    });
  },
  120_000,
);
