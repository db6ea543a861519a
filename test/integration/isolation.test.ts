// The hardening, seen from inside: a program that tries what a hostile one would, in a container made from a plan by
// the code that makes sandboxes.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CgroupPaths, cgroupPathsOf } from "../../src/engine/cgroup-path.ts";
import { deviceNumberOf, findUnenforced, readBackLimits } from "../../src/engine/limits.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import {
  buildProbe,
  essentialControls,
  expectedChecks,
  type Findings,
  probeObstacle,
  removeBattery,
  runBattery,
} from "../isolation/battery.ts";
import { removeCgroup, throttledDisk } from "../isolation/container.ts";

const run = promisify(execFile);
const reason = engineObstacle ?? (await probeObstacle());

describe.skipIf(reason !== undefined)(
  `a hardened container${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    const name = `isolation-${process.pid}`;
    let engine: Docker;
    let directory: string;
    let found: Findings;
    let cgroups: CgroupPaths;
    let unenforced: readonly unknown[];

    beforeAll(async () => {
      engine = new Docker({ socketPath: sharedEngine() });
      directory = mkdtempSync(join(tmpdir(), "isolation-"));
      const probe = await buildProbe(directory);
      const device = throttledDisk();
      found = await runBattery({
        engine,
        probe,
        directory,
        name,
        ...(device === undefined ? {} : { device }),
        control: async () => (await run(probe, ["--control"], { cwd: directory })).stdout,
        onRunning(plan, containerId, pid) {
          cgroups = cgroupPathsOf(pid, { containerId });
          const throttled = device === undefined ? {} : { device: deviceNumberOf(device) };
          unenforced = findUnenforced(plan, readBackLimits({ paths: cgroups, ...throttled }));
        },
      });
    }, 120_000);

    afterAll(async () => {
      await removeBattery(engine, name);
      rmSync(directory, { recursive: true, force: true });
      removeCgroup(found.plan.cgroupParent);
    });

    test("is what its plan demands, as the engine shows it", () => {
      expect(found.mismatches).toEqual([]);
      expect(found.warnings).toEqual([]);
    });

    test("is held to its limits by the kernel", () => {
      expect(unenforced).toEqual([]);
      expect(cgroups.memory).toContain(found.plan.cgroupParent);
    });

    test("gets no volume from its image", () => {
      expect(found.mounts).toEqual([]);
    });

    test("passes every check from inside", () => {
      expect([...found.inside.values()].filter((check) => !check.ok)).toEqual([]);
    });

    test.each(expectedChecks())("passes %s", (check) => {
      expect(found.inside.get(check)).toMatchObject({ ok: true });
    });

    test("is refused what this kernel would let through", () => {
      const open = [...found.outside.values()].filter((check) => check.ok && /^1[5-8]\./.test(check.check));
      // a kernel may lack some of the calls, but a control that finds few open is no control
      expect(open.length).toBeGreaterThan(60);
      for (const check of essentialControls) {
        expect(found.outside.get(check), check).toMatchObject({ ok: true });
      }
    });

    test("has no variable but its own", () => {
      const names = found.inside.get("23.environment")?.detail.trim().split(" ").toSorted();
      expect(names).toEqual(["HOME", "HOSTNAME", "PATH", ...Object.keys(found.plan.env)].toSorted());
    });
  },
);
