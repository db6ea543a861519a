import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { projectQuotaObstacle } from "../../../../src/workspace/backend/project-obstacle.ts";

const run = () => Promise.reject(new Error("nothing was to be run"));

test("a file system that has no project quotas is told by its type, without running a program", async () => {
  // the kernel's own, on every host
  expect(await projectQuotaObstacle("/proc/self", { run })).toMatch(
    /^\/proc\/self is on proc, and only xfs and ext4/,
  );
});

test("a directory that is not there is judged by what it would be on", async () => {
  const directory = mkdtempSync(join(tmpdir(), "obstacle-"));
  const told = await projectQuotaObstacle(directory, { run });
  rmSync(directory, { recursive: true });
  expect(await projectQuotaObstacle(directory, { run })).toBe(told);
  expect(await projectQuotaObstacle(join(directory, "a/b"), { run })).toBe(
    told?.replace(directory, `${directory}/a/b`),
  );
});

test("a path with a blank is refused, as the program splits its commands there", async () => {
  expect(await projectQuotaObstacle("/srv/my workspaces", { run })).toContain("has a blank in its path");
});
