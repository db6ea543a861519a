// A daemon whose cgroup has too little memory: the kernel kills it, and who supervises it starts it again, in vain for as long as
// that is so. Sandboxes are in cgroups of their own, and notice nothing.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type Cgroup, isUnified, makeCgroup } from "../harness/cgroup.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";
import { openSmallDisk, type SmallDisk } from "../harness/small-disk.ts";

/** Twice what a daemon takes. */
const memoryBytes = 256 * mebibyte;
/** Not enough to start. */
const spareBytes = 24 * mebibyte;
/** As the service does it (RestartSec=). */
const restartMs = 1_000;

describe.skipIf(engineObstacle !== undefined)(
  `a daemon that is short of memory (${engineObstacle ?? "engine"})`,
  () => {
    let witness: EventWitness;
    let memory: Cgroup;
    let disk: SmallDisk;
    let host: TestHost;
    let supervisor: Supervisor;
    beforeAll(async () => {
      witness = await witnessEvents();
      memory = makeCgroup("memory");
      memory.write(isUnified ? "memory.max" : "memory.limit_in_bytes", memoryBytes);
      disk = await openSmallDisk(`${memoryBytes}`);
      const config = { engine: { relist_period: "1s" }, ...witness.config };
      // among all in the cgroup the daemon is the one to be killed
      const victim = ["sh", "-c", 'echo 1000 >/proc/self/oom_score_adj && exec "$0" "$@"'];
      host = await startHost({ launcher: [...memory.launcher, ...victim], config });
      supervisor = supervise(host);
    });
    afterAll(async () => {
      disk?.free();
      await supervisor?.close();
      await host?.daemon.cleanup();
      await disk?.close();
      await memory?.close();
      await witness?.close();
    });

    /** Takes so much of the cgroup's memory, by a file that is kept in it. */
    async function take(bytes: number): Promise<void> {
      const script = 'have=$(stat -c %s "$1" || echo 0); exec head -c $(($0 - have)) /dev/zero >>"$1"';
      const [command = "", ...args] = [...memory.launcher, ...disk.launcher, "sh", "-c", script];
      const file = join(disk.directory, "ballast");
      const attempt = async () => {
        const taker = spawn(command, [...args, String(bytes), file], { stdio: "ignore" });
        return (await once(taker, "close"))[0] as number | null;
      };
      // it may be killed in place of a daemon that is just dying
      await eventually("the shortage", attempt, (code) => code === 0);
    }
    const kills = () =>
      Number(/oom_kill (\d+)/.exec(memory.read(isUnified ? "memory.events" : "memory.oom_control"))?.[1]);
    /** The processes that sandboxes began with. */
    const processesOf = (sandboxes: readonly Sandbox[]) =>
      Promise.all(
        sandboxes.map(async ({ status }) => {
          const container = host.docker.getContainer(present(status).containerId);
          return (await container.inspect()).State.Pid;
        }),
      );
    const get = (sandboxes: readonly Sandbox[]) =>
      Promise.all(sandboxes.map(({ sandboxId }) => host.get(sandboxId)));

    test("is killed, started again, adopts all that runs, and stays", async () => {
      const before = await Promise.all(["one", "two", "three"].map((id) => host.run(id, sleeping)));
      const running = await processesOf(before);
      const [killsBefore, endsBefore] = [kills(), supervisor.ends()];
      const request = { sandboxId: "meanwhile", tenant, spec: specOf(sleeping) };
      const taken = take(memoryBytes - spareBytes);
      const created = host.sandboxes.createSandbox(request, { timeoutMs: 5_000 }).catch(() => undefined);
      await Promise.all([taken, eventually("its end", supervisor.ends, (ends) => ends > endsBefore)]);
      disk.free();
      await created;
      expect(kills(), "the kernel ended it").toBeGreaterThan(killsBefore);

      expect(
        await eventually(
          "all of them",
          () => get(before),
          () => true,
          40_000,
        ),
      ).toEqual(before);
      const ends = supervisor.ends();
      expect(await processesOf(before)).toEqual(running);
      for (const { sandboxId } of before) await host.sandboxes.getSandboxStats({ sandboxId });
      const again = await host.sandboxes.createSandbox(request);
      expect(again.sandbox?.status?.state).toBe(SandboxState.RUNNING);
      expect(await host.containers()).toHaveLength(4);
      await sleep(10 * restartMs);
      expect(supervisor.ends(), "no end follows").toBe(ends);
      await witness.check(host);
    });

    test("is started in vain while there is too little, which costs nobody anything, and serves once there is enough", async () => {
      const before = await Promise.all(["four", "five"].map((id) => host.run(id, sleeping)));
      await host.run("leaver", "sleep 5; exit 5");
      const running = await processesOf(before);
      const endsBefore = supervisor.ends();
      await take(memoryBytes - spareBytes);
      await eventually("some ends", supervisor.ends, (ends) => ends >= endsBefore + 4, 60_000);
      expect(await processesOf(before)).toEqual(running);

      disk.free();
      expect(
        await eventually(
          "all of them",
          () => get(before),
          () => true,
          40_000,
        ),
      ).toEqual(before);
      const leaver = await host.until("leaver", isIn(SandboxState.FAILED));
      expect(leaver.status?.exit?.code, "what ended meanwhile is told").toBe(5);
      expect(await processesOf(before)).toEqual(running);
      await witness.check(host);
    });
  },
);

interface Supervisor {
  /** How often the daemon ended so far. */
  ends(): number;
  close(): Promise<void>;
}

/** Starts a daemon again after each end, until it is closed. */
function supervise({ daemon }: TestHost): Supervisor {
  let ends = 0;
  let isClosed = false;
  const isRunning = () => existsSync(`/proc/${daemon.pid()}`);
  const watching = (async () => {
    while (!isClosed) {
      await sleep(50);
      if (isRunning()) continue;
      ends += 1;
      await sleep(restartMs);
      // one that ends before it serves is started again like any other
      await daemon.start().catch(() => undefined);
    }
  })();
  return {
    ends: () => ends,
    async close() {
      isClosed = true;
      await watching;
    },
  };
}
