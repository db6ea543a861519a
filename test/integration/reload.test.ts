// What a SIGHUP changes in a daemon that runs, and what it does not.

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import type { TomlTable } from "smol-toml";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { engineObstacle } from "../harness/engine.ts";
import { refusalOf, sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";
import { type Authority, createAuthority } from "../unit/api/certificates.ts";

describe.skipIf(engineObstacle !== undefined)(`a reload (${engineObstacle ?? "engine"})`, () => {
  let directory: string;
  let authority: Authority;
  let config: TomlTable;
  let port: number;
  let host: TestHost;

  const file = (name: string) => join(directory, name);
  /** Puts a new certificate of the listener in place. */
  async function renew(name: string): Promise<void> {
    const pair = await authority.issue(name, { subject: `/CN=${name}`, usage: "serverAuth" });
    copyFileSync(pair.certFile, file("server.crt"));
    copyFileSync(pair.keyFile, file("server.key"));
  }
  /** The name on the certificate that the listener shows. */
  const shown = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false });
      socket.once("secureConnect", () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      });
      socket.once("error", reject);
    });
  /** Sends the signal; resolves when the daemon has logged what it came to. */
  async function reload(outcome: RegExp): Promise<string> {
    const before = host.daemon.logs().length;
    await host.daemon.kill("SIGHUP");
    await expect.poll(() => host.daemon.logs().slice(before), { timeout: 10_000 }).toMatch(outcome);
    return host.daemon.logs().slice(before);
  }

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "reload-"));
    authority = await createAuthority(directory, "authority");
    await renew("first");
    port = await freePort();
    config = {
      listen: {
        tls: {
          address: `127.0.0.1:${port}`,
          certificate: file("server.crt"),
          key: file("server.key"),
          client_ca: authority.certFile,
        },
      },
    };
    host = await startHost({ config });
  });
  afterEach(async () => {
    await host?.daemon.cleanup();
    rmSync(directory, { recursive: true, force: true });
  });

  test("shows renewed certificates, and the old ones while the new can't be used", async () => {
    expect(await shown()).toBe("first");
    await renew("second");
    await reload(/"configuration reloaded"/);
    expect(await shown()).toBe("second");
    writeFileSync(file("server.crt"), "no certificate\n");
    const log = await reload(/the old one stays/);
    expect(log).toContain("server.crt");
    expect(await shown()).toBe("second");
  });

  test("changes what requests are held against, and keeps it at a file with errors", async () => {
    const create = (sandboxId: string) => host.run(sandboxId, sleeping, { pids: 310n });
    host.daemon.configure({ ...config, limits: { max: { pids: 300 } }, sampling: { period: "2s" } });
    const log = await reload(/"configuration reloaded"/);
    expect(log).toMatch(/"key":"limits.max.pids","before":"4194304","after":"300"/);
    expect(log).toMatch(/"key":"sampling.period".*restarted/);
    expect((await refusalOf(create("one"))).code).toBe("InvalidArgument");

    host.daemon.configure({ ...config, limits: { max: { pids: "many" } } });
    await reload(/the old one stays/);
    expect((await refusalOf(create("one"))).code).toBe("InvalidArgument");

    host.daemon.configure(config);
    await reload(/"configuration reloaded"/);
    await create("one");
  });
});

/** A port of loopback that is free now. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
