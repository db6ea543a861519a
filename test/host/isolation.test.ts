// The hardening on a whole host, seen from inside: cgroup v2, AppArmor, and a kernel as Debian ships it.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type GuestHost, guestPatienceMs, isGuestMissing, startGuestHost } from "../harness/guest.ts";
import { eventually, present } from "../harness/sandboxes.ts";
import {
  buildProbe,
  essentialControls,
  expectedChecks,
  type Findings,
  removeBattery,
  runBattery,
} from "../isolation/battery.ts";

const run = promisify(execFile);

describe.skipIf(isGuestMissing)("a hardened container on a whole host", () => {
  const name = "isolation";
  let host: GuestHost;
  let directory: string;
  let found: Findings;

  beforeAll(async () => {
    host = await startGuestHost();
    directory = mkdtempSync(join(tmpdir(), "isolation-"));
    const probe = await buildProbe(directory);
    const archive = join(directory, "probe.tar");
    await run("tar", ["-C", directory, "-cf", archive, "probe"]);
    await host.guest.upload(archive, "/root/control");
    found = await runBattery({
      engine: host.docker,
      probe,
      directory,
      name,
      device: (await host.guest.run("findmnt -no SOURCE /var/lib/docker")).trim(),
      control: () => host.guest.run("cd /root/control && ./probe --control"),
    });
  });
  afterAll(async () => {
    rmSync(directory, { recursive: true, force: true });
    await removeBattery(host.docker, name);
    await host.close();
  });

  test("is what its plan demands, as the engine shows it", () => {
    expect(found.mismatches).toEqual([]);
    expect(found.warnings).toEqual([]);
    expect(found.mounts).toEqual([]);
  });

  test("is confined by AppArmor", () => {
    expect(found.appArmorProfile).toBe("docker-default");
  });

  test("passes every check from inside, and none was left out", () => {
    expect([...found.inside.values()].filter((check) => !check.ok)).toEqual([]);
    expect(expectedChecks().filter((check) => !found.inside.has(check))).toEqual([]);
  });

  test("is refused what this kernel would let through", () => {
    const open = [...found.outside.values()].filter((check) => check.ok && /^1[5-8]\./.test(check.check));
    // a kernel may lack some of the calls, but a control that finds few open is no control
    expect(open.length).toBeGreaterThan(60);
    for (const check of essentialControls) {
      expect(found.outside.get(check), check).toMatchObject({ ok: true });
    }
  });

  test("a sandbox sees its own cgroup as the root, and AppArmor's profile on itself", async () => {
    const look = "cat /proc/self/cgroup /proc/self/attr/current; readlink /proc/self/ns/cgroup; sleep 1000";
    const sandbox = await host.run("looker", look);
    const output = () => host.output("looker");
    const text = await eventually(
      "three lines",
      output,
      (seen) => seen.includes("cgroup:["),
      guestPatienceMs,
    );
    const lines = text.trim().split("\n");
    expect(lines.slice(0, 2)).toEqual(["0::/", "docker-default (enforce)"]);
    expect(lines[2]).toMatch(/^cgroup:\[\d+\]$/);
    expect(lines[2]).not.toBe((await host.guest.run("readlink /proc/self/ns/cgroup")).trim());
    expect(present(sandbox.status).uid).toBeGreaterThanOrEqual(10_000);
  });
});
