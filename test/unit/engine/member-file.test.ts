import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openNetworkFile } from "../../../src/engine/member-file.ts";

const containerId = "c".repeat(64);

/** A cgroup whose processes are these. */
function placeOf(pids: readonly number[]) {
  const cgroupRoot = mkdtempSync(join(tmpdir(), "cgroup-"));
  onTestFinished(() => rmSync(cgroupRoot, { recursive: true }));
  const directory = join(cgroupRoot, "sandboxes", containerId);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "cgroup.procs"), pids.map((pid) => `${pid}\n`).join(""));
  return { containerId, parent: "/sandboxes", version: 2, cgroupRoot } as const;
}

test("the daemon's own network is nobody's, whatever the cgroup says", () => {
  for (const file of ["ns/net", "net/tcp", "net/tcp6"] as const) {
    expect(openNetworkFile(placeOf([process.pid]), file)).toBeUndefined();
  }
});

test("a container without a process has none", () => {
  expect(openNetworkFile(placeOf([]), "ns/net")).toBeUndefined();
  expect(openNetworkFile(placeOf([2 ** 22 + 1]), "ns/net")).toBeUndefined();
  expect(openNetworkFile({ ...placeOf([]), containerId: "d".repeat(64) }, "ns/net")).toBeUndefined();
});
