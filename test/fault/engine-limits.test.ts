// Limits, where the engine can be made to drop them on the way: what the kernel was not given, no sandbox runs with.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Sandbox } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { deviceNumberOf } from "../../src/engine/limits.ts";
import { diskOf } from "../../src/host/block-device.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type EngineDoor, openDoor } from "../harness/engine-door.ts";
import {
  eventually,
  type LocalHost,
  present,
  refusalOf,
  sleeping,
  startHost,
  whereIs,
} from "../harness/sandboxes.ts";

const isUnified = existsSync("/sys/fs/cgroup/cgroup.controllers");
const blockIo = {
  readBytesPerSecond: 4_194_304n,
  writeBytesPerSecond: 2_097_152n,
  readOperationsPerSecond: 400n,
  writeOperationsPerSecond: 200n,
};

describe.skipIf(engineObstacle !== undefined)(
  `limits at a bad engine (${engineObstacle ?? "engine"})`,
  () => {
    let door: EngineDoor;
    let host: LocalHost;
    let dataRoot: string;
    beforeAll(async () => {
      door = await openDoor(sharedEngine());
      host = await startHost({ door: door.socket, config: { engine: { relist_period: "1s" } } });
      dataRoot = (await host.docker.info()).DockerRootDir;
    });
    afterEach(async () => {
      door.mend();
      const { sandboxes } = await host.sandboxes.listSandboxes({});
      await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
    });
    afterAll(async () => {
      await host?.daemon.cleanup();
      await door?.close();
    });

    /** A file of the sandbox's cgroup. */
    const kernelFile = ({ status }: Sandbox, controller: string, name: string) =>
      readFileSync(
        join("/sys/fs/cgroup", ...(isUnified ? [] : [controller]), host.cgroupOf(present(status)), name),
        "utf8",
      ).trim();
    const weightOf = (sandbox: Sandbox) =>
      Number(isUnified ? kernelFile(sandbox, "", "cpu.weight") : kernelFile(sandbox, "cpu", "cpu.shares"));
    const edited = (edit: (body: Record<string, unknown>) => object) =>
      ({ kind: "change", asked: (body: object) => ({ ...body, ...edit({ ...body }) }) }) as const;

    test("an update of the CPU request reaches the kernel's weight", async () => {
      const sandbox = await host.run("weighed", sleeping, { cpuMillis: 400n, cpuRequestMillis: 100n });
      const before = weightOf(sandbox);
      await host.sandboxes.updateSandbox({ sandboxId: "weighed", resources: { cpuRequestMillis: 400n } });
      if (!isUnified) expect([before, weightOf(sandbox)]).toEqual([102, 410]);
      expect(weightOf(sandbox)).toBeGreaterThan(before);
    });

    test.each(["CpuShares", "CpuQuota", "PidsLimit"])(
      "an update of which the engine drops %s is refused, and the old limits are back",
      async (key) => {
        const limits = { cpuMillis: 200n, cpuRequestMillis: 100n, pids: 30n };
        const sandbox = await host.run("held", sleeping, limits);
        const before = weightOf(sandbox);
        door.rule({ path: /\/update$/, times: 1, fault: edited(() => ({ [key]: undefined })) });
        const update = { cpuMillis: 400n, cpuRequestMillis: 300n, pids: 40n };
        const refused = await refusalOf(
          host.sandboxes.updateSandbox({ sandboxId: "held", resources: update }),
        );
        expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
        expect((await host.get("held")).spec?.resources).toMatchObject(limits);
        expect(weightOf(sandbox)).toBe(before);
        const { HostConfig } = await host.docker.getContainer(present(sandbox.status).containerId).inspect();
        expect([HostConfig.PidsLimit, HostConfig.CpuQuota]).toEqual([30, 20_000]);
      },
    );

    test.each(["arrived", "done"] as const)(
      "an update of a sandbox that ends as it has %s is made, for its next run",
      async (at) => {
        const { status } = await host.run("ends", sleeping, { pids: 30n });
        const container = host.docker.getContainer(present(status).containerId);
        const kill = async () => {
          await container.kill();
          await container.wait();
        };
        const fault =
          at === "done"
            ? ({ kind: "point", at, reached: kill } as const)
            : // what arrived goes no further by a point, but may be late
              ({ kind: "late", ms: 1_000 } as const);
        door.rule({ path: /\/update$/, times: 1, fault });
        const updating = host.sandboxes.updateSandbox({ sandboxId: "ends", resources: { pids: 40n } });
        if (at === "arrived") await kill();
        expect((await updating).sandbox?.spec?.resources?.pids).toBe(40n);
        expect((await container.inspect()).HostConfig.PidsLimit).toBe(40);
        const ended = await host.until("ends", (now) => whereIs(now).state !== "RUNNING");
        expect(ended.spec?.resources?.pids).toBe(40n);
        const { sandbox } = await host.sandboxes.startSandbox({ sandboxId: "ends" });
        expect(kernelFile(present(sandbox), "pids", "pids.max")).toBe("40");
      },
    );

    describe("of block I/O", () => {
      test("are in the kernel's files for the engine's disk, and stay over a stop and a start", async (context) => {
        const disk = diskOf(dataRoot);
        if (disk === undefined) return context.skip("the engine's data is on no disk that can be throttled");
        const sandbox = await host.run("throttled", sleeping, { blockIo });
        expect(sandbox.spec?.resources?.blockIo).toMatchObject(blockIo);
        const device = deviceNumberOf(disk);
        const expectHeld = (now: Sandbox) => {
          if (isUnified) {
            expect(kernelFile(now, "", "io.max")).toBe(
              `${device} rbps=4194304 wbps=2097152 riops=400 wiops=200`,
            );
            return;
          }
          const throttle = (name: string) => kernelFile(now, "blkio", `blkio.throttle.${name}_device`);
          expect(["read_bps", "write_bps", "read_iops", "write_iops"].map(throttle)).toEqual(
            [4_194_304, 2_097_152, 400, 200].map((rate) => `${device} ${rate}`),
          );
        };
        expectHeld(sandbox);
        await host.sandboxes.stopSandbox({ sandboxId: "throttled" });
        await host.sandboxes.startSandbox({ sandboxId: "throttled" });
        expectHeld(await host.get("throttled"));
      });

      test("that the engine drops keep the sandbox from running", async () => {
        const fault = edited(({ HostConfig }) => ({
          HostConfig: { ...(HostConfig as object), BlkioDeviceWriteBps: [] },
        }));
        door.rule({ path: /^\/containers\/create$/, fault });
        const refused = await refusalOf(host.run("unthrottled", sleeping, { blockIo }));
        expect(refused.reason).toBe("HARDENING_MISMATCH");
        expect(await host.containers()).toEqual([]);
      });

      test("are refused where the engine's data is on no disk that can be throttled, at a start as well", async () => {
        await host.run("before", sleeping, { blockIo });
        await host.sandboxes.stopSandbox({ sandboxId: "before" });
        // a file system without a disk below
        const answered = (info: object) => ({ ...info, DockerRootDir: "/proc" });
        door.rule({ path: /^\/info$/, fault: { kind: "change", answered } });
        let tries = 0;
        // until the engine was described anew one is made, or fails on its way
        const create = () => refusalOf(host.run(`after-${tries++}`, sleeping, { blockIo }));
        const refusal = { code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" };
        expect(await eventually("a failure", create, () => true)).toMatchObject(refusal);
        expect(await create()).toMatchObject(refusal);
        expect((await refusalOf(host.get(`after-${tries - 1}`))).reason).toBe("SANDBOX_NOT_FOUND");
        expect(await refusalOf(host.sandboxes.startSandbox({ sandboxId: "before" }))).toMatchObject(refusal);
        expect(whereIs(await host.get("before")).state).toBe("STOPPED");
        expect(whereIs(await host.run("plain", sleeping)).state, "others run").toBe("RUNNING");
      });
    });
  },
);
