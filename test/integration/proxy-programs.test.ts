// That the programs people use honour what sandboxes behind a proxy are told: run with that environment, before a proxy of the test's own,
// which notes what it is asked for and lets nothing through. Those that this machine does not have are skipped.

import { execFile, execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { proxyEnvironment } from "../../src/network/proxy.ts";

/** What each runs to get something from a host: its version, so that it is known to be there, and the arguments. */
const programs = {
  git: {
    present: ["git", "--version"],
    get: (host: string) => ["git", "ls-remote", `https://${host}/x.git`],
  },
  npm: {
    present: ["npm", "--version"],
    get: (host: string) => ["npm", "view", "x", "--fetch-retries=0", `--registry=https://${host}/`],
  },
  pip: {
    present: ["pip", "--version"],
    get: (host: string) => [
      ...["pip", "--disable-pip-version-check", "download", "--no-deps", "--retries", "0"],
      ...["--timeout", "3", "--index-url", `https://${host}/simple`, "x"],
    ],
  },
  curl: { present: ["curl", "--version"], get: (host: string) => ["curl", "-s", `https://${host}/`] },
  wget: {
    present: ["wget", "--version"],
    get: (host: string) => ["wget", "-q", "-t", "1", "-T", "3", `https://${host}/`],
  },
} as const;

function isPresent([program, ...args]: readonly string[]): boolean {
  try {
    execFileSync(program ?? "", args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

describe("behind a proxy", () => {
  let proxy: Server;
  let home: string;
  const asked: string[] = [];

  beforeAll(async () => {
    home = mkdtempSync(join(tmpdir(), "proxied-"));
    proxy = createServer((_request, response) => response.writeHead(403).end());
    proxy.on("connect", (request, socket: Socket) => {
      asked.push(request.url ?? "");
      socket.on("error", () => undefined).end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
  });
  afterAll(() => {
    proxy.close();
    rmSync(home, { recursive: true, force: true });
  });

  /** Runs one to its end, which is a failure: nothing gets through. */
  async function run([program = "", ...args]: readonly string[]): Promise<void> {
    const { port } = proxy.address() as AddressInfo;
    const told = proxyEnvironment({ name: "test", address: "127.0.0.1", port, noProxy: [".inside.example"] });
    const env = { PATH: process.env["PATH"] ?? "", HOME: home, GIT_TERMINAL_PROMPT: "0", ...told };
    await new Promise((resolve) => execFile(program, args, { cwd: home, env, timeout: 30_000 }, resolve));
  }

  describe.each(Object.entries(programs))("%s", (name, { present, get }) => {
    const isAbsent = !isPresent(present);

    test("goes through it", async ({ skip }) => {
      skip(isAbsent, `there is no ${name} on this machine`);
      asked.length = 0;
      await run(get("far.example"));
      expect(asked).toContain("far.example:443");
    });

    test("spares it what it is not for", async ({ skip }) => {
      skip(isAbsent, `there is no ${name} on this machine`);
      asked.length = 0;
      await run(get("near.inside.example"));
      expect(asked).toEqual([]);
    });
  });
});
