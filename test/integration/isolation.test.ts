// The hardening, seen from inside: a program that tries what a hostile one would, in a container made from a plan by
// the code that makes sandboxes. A second run of it, unconfined, tells which refusals are the sandbox's merit.

import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CgroupPaths, cgroupPathsOf } from "../../src/engine/cgroup-path.ts";
import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import { deviceNumberOf, findUnenforced, readBackLimits } from "../../src/engine/limits.ts";
import { findMismatches, limitWarnings } from "../../src/engine/verify.ts";
import { create, importImage, planFor, removeCgroup } from "../isolation/container.ts";

const run = promisify(execFile);
const sources = join(import.meta.dirname, "../isolation");

const { SANDBOXD_TEST_ENGINE: socketPath } = process.env;

interface Check {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Why these tests cannot run here, if so. */
async function obstacle(): Promise<string | undefined> {
  if (socketPath === undefined) return "SANDBOXD_TEST_ENGINE names no engine's socket";
  const hasCompiler = await run("gcc", ["--version"]).then(
    () => true,
    () => false,
  );
  return hasCompiler ? undefined : "there is no gcc to build the probe with";
}

const reason = await obstacle();

describe.skipIf(reason !== undefined)(
  `a hardened container${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    const engine = new Docker({ socketPath: socketPath ?? "" });
    const name = `isolation-${process.pid}`;
    let directory: string;
    let plan: ContainerPlan;
    let inside: ReadonlyMap<string, Check>;
    let outside: ReadonlyMap<string, Check>;
    let warnings: readonly string[];
    let mismatches: readonly unknown[];
    let unenforced: readonly unknown[];
    let cgroups: CgroupPaths;
    let mounts: readonly unknown[];

    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), "isolation-"));
      const probe = join(directory, "probe");
      const files = readdirSync(sources).filter((file) => file.endsWith(".c"));
      await run("gcc", [
        "-D_GNU_SOURCE",
        "-static",
        "-O1",
        "-o",
        probe,
        ...files.map((file) => join(sources, file)),
      ]);
      // the control speaks of the kernel; its own failed calls are facts, not errors
      outside = parse((await run(probe, ["--control"], { cwd: directory })).stdout);

      const imageId = await importImage(engine, probe, directory, name);
      plan = await planFor(engine, name, imageId);
      const answer = await create(engine, plan);
      const container = engine.getContainer(answer.Id);
      warnings = limitWarnings(answer.Warnings);
      const created = await container.inspect();
      mismatches = findMismatches(plan, created);
      mounts = created.Mounts;
      await container.start();
      const { State } = await container.inspect();
      cgroups = cgroupPathsOf(State.Pid, { containerId: container.id });
      const device = plan.limits.blockIo && deviceNumberOf(plan.limits.blockIo.device);
      unenforced = findUnenforced(
        plan,
        readBackLimits({ paths: cgroups, ...(device === undefined ? {} : { device }) }),
      );
      // the probe waits for this, so that its limits could be read while it lives
      await container.kill({ signal: "SIGUSR1" });
      await container.wait();
      inside = parse(
        plainOutput((await container.logs({ stdout: true, stderr: true, follow: false })) as Buffer),
      );
    }, 120_000);

    afterAll(async () => {
      await engine.getContainer(name).remove({ force: true }).catch(ignoreAbsent);
      await engine.getImage(`${name}:latest`).remove({ force: true }).catch(ignoreAbsent);
      rmSync(directory, { recursive: true, force: true });
      removeCgroup(plan.cgroupParent);
    });

    test("is what its plan demands, as the engine shows it", () => {
      expect(mismatches).toEqual([]);
      expect(warnings).toEqual([]);
    });

    test("is held to its limits by the kernel", () => {
      expect(unenforced).toEqual([]);
      expect(cgroups.memory).toContain(plan.cgroupParent);
    });

    test("gets no volume from its image", () => {
      expect(mounts).toEqual([]);
    });

    test("passes every check from inside", () => {
      expect([...inside.values()].filter((check) => !check.ok)).toEqual([]);
    });

    test.each(expectedChecks())("passes %s", (check) => {
      expect(inside.get(check)).toMatchObject({ ok: true });
    });

    test("is refused what this kernel would let through", () => {
      const open = [...outside.values()].filter((check) => check.ok && /^1[5-8]\./.test(check.check));
      // a kernel may lack some of the calls, but a control that finds few open is no control
      expect(open.length).toBeGreaterThan(60);
      for (const name of essentialControls) expect(outside.get(name), name).toMatchObject({ ok: true });
    });

    test("has no variable but its own", () => {
      const names = inside.get("23.environment")?.detail.trim().split(" ").toSorted();
      expect(names).toEqual(["HOME", "HOSTNAME", "PATH", ...Object.keys(plan.env)].toSorted());
    });
  },
);

/** Calls that every supported kernel has: where the control is refused one of these, it runs confined itself. */
const essentialControls = [
  "15.unshare-mount",
  "15.mount",
  "15.setns",
  "15.clone-newnet",
  "15.pivot_root",
  "16.inet-raw",
  "16.inet-raw-high-bits",
  "17.FS_IOC_SETFLAGS-high-bit",
  "17.TIOCSTI-high-bit",
] as const;

/** The names that the probe's sources hold, so that a check that never ran is missed. */
function expectedChecks(): readonly string[] {
  const text = readdirSync(sources)
    .filter((file) => file.endsWith(".c"))
    .map((file) => readFileSync(join(sources, file), "utf8"))
    .join("\n");
  const literal = [...text.matchAll(/"((?:\d+|works)\.[A-Za-z][A-Za-z0-9_.-]*)"/g)].flatMap(
    ([, check]) => check ?? [],
  );
  const generated = [
    "17.FS_IOC_FSSETXATTR-high-bit",
    "13.inodes/tmp",
    "13.bytes/volume",
    "13.bytes/dev/shm",
    "22.169.254.169.254",
  ];
  const isNative = (check: string) => process.arch === "x64" || !/^18\.|iopl|ioperm|modify_ldt/.test(check);
  return [...new Set([...literal, ...generated])].filter(isNative);
}

function parse(output: string): ReadonlyMap<string, Check> {
  const checks = output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Check);
  return new Map(checks.map((check) => [check.check, check]));
}

/** The engine frames output in packets of eight bytes of header and a length; only the bodies matter here. */
function plainOutput(framed: Buffer): string {
  const bodies: Buffer[] = [];
  for (let at = 0; at < framed.length; ) {
    const end = at + 8 + framed.readUInt32BE(at + 4);
    bodies.push(framed.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(bodies).toString("utf8");
}

function ignoreAbsent(error: unknown): void {
  if ((error as { readonly statusCode?: number }).statusCode !== 404) throw error;
}
