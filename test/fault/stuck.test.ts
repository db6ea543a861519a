// Sandboxes that no signal ends: their processes are in state D, as behind a disk or a network file system that hangs. A frozen
// task of cgroup v1 is in that state; on cgroup v2 it can be killed.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Event, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type Cgroup, isUnified, makeCgroup } from "../harness/cgroup.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  type LocalHost,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const obstacle = isUnified
  ? "no process can be held in state D: cgroup v2, whose frozen tasks can be killed"
  : engineObstacle;

/** The engine itself waits for 10 s until it gives up a kill. */
const timeouts = { stop: "2s", remove: "3s" };
const deadlineMs = 5_000;
/** Of a call of another sandbox, on a machine that has other things to do. */
const promptMs = 4_000;
/** Three tries at a stop, each with its wait. */
const triesMs = 12_000;

describe.skipIf(obstacle !== undefined)(
  `a sandbox whose processes are in state D (${obstacle ?? "engine"})`,
  () => {
    let witness: EventWitness;
    let host: LocalHost;
    /** The engine knows nothing of it, and so cannot let go what is in it. */
    let freezer: Cgroup;
    beforeEach(async () => {
      freezer = makeCgroup("freezer");
      witness = await witnessEvents();
      host = await startHost({ config: { engine: { relist_period: "1s", timeouts }, ...witness.config } });
    });
    afterEach(async () => {
      thaw();
      await host?.daemon.cleanup();
      await witness?.close();
      await freezer.close();
    });

    const thaw = () => freezer.write("freezer.state", "THAWED");

    /** Puts all its processes into state D. Returns their ids. */
    async function freeze({ status }: Sandbox): Promise<readonly string[]> {
      const cgroup = join("/sys/fs/cgroup/pids", host.cgroupOf(present(status)));
      const pids = readFileSync(join(cgroup, "cgroup.procs"), "latin1").trim().split("\n");
      for (const pid of pids) freezer.write("cgroup.procs", pid);
      freezer.write("freezer.state", "FROZEN");
      await eventually(
        "the freeze",
        () => freezer.read("freezer.state"),
        (state) => state === "FROZEN",
      );
      return pids;
    }

    const eventsOf = async (sandboxId: string): Promise<readonly Event[]> =>
      (await host.events.listEvents({ pageSize: 1_000, filter: { sandboxId } })).events;
    const tellings = async (sandboxId: string) =>
      (await eventsOf(sandboxId)).filter(({ type }) => type === EventType.SANDBOX_STUCK);
    const explained = async (sandboxId: string) =>
      (await host.sandboxes.explainSandbox({ sandboxId })).findings.find(({ kind }) => kind === "stuck");
    const stop = (sandboxId: string) =>
      host.sandboxes.stopSandbox({ sandboxId, grace: { seconds: 1n } }, { timeoutMs: deadlineMs });
    const remove = (sandboxId: string) =>
      host.sandboxes.deleteSandbox({ sandboxId }, { timeoutMs: deadlineMs });

    /** Fails unless the call ends by its deadline, and by nothing else. */
    async function endsInVain(call: () => Promise<unknown>): Promise<void> {
      const began = performance.now();
      expect(await refusalOf(call())).toMatchObject({ code: "DeadlineExceeded" });
      expect(performance.now() - began).toBeLessThan(deadlineMs + 1_000);
    }

    /** Gives other sandboxes whole lives, one after the other, for as long as `job` takes. Returns how long the slowest call took. */
    async function othersLiveDuring(job: () => Promise<unknown>): Promise<number> {
      let isOver = false;
      const jobEnds = job().finally(() => {
        isOver = true;
      });
      let slowestMs = 0;
      const timed = async (call: Promise<unknown>) => {
        const began = performance.now();
        await call;
        slowestMs = Math.max(slowestMs, performance.now() - began);
      };
      const { sandboxes } = host;
      const live = async () => {
        for (let turnOf = 0; turnOf < 3 || !isOver; turnOf += 1) {
          const sandboxId = `other-${turnOf}`;
          await timed(sandboxes.createSandbox({ sandboxId, tenant, spec: specOf(sleeping) }));
          await timed(sandboxes.stopSandbox({ sandboxId }));
          await timed(sandboxes.deleteSandbox({ sandboxId }));
        }
      };
      await Promise.all([live(), jobEnds]);
      return slowestMs;
    }

    /** Holds what is told of a sandbox that does not end against what is there. */
    async function expectEvidence(id: string, pids: readonly string[]): Promise<void> {
      const { status } = await host.until(id, (sandbox) => sandbox.status?.stuck !== undefined);
      const evidence = present(present(status).stuck).evidence;
      for (const pid of pids) expect(evidence).toMatch(new RegExp(`pid ${pid} \\([\\w-]+\\) D`));
      const told = await tellings(id);
      expect(told.map(({ sandbox }) => sandbox?.status?.stuck?.evidence)).toEqual([evidence]);
      expect((await explained(id))?.message).toContain(evidence);
    }

    test("is told as stuck once, holds up nobody else, and is stopped as soon as its processes can end", async () => {
      const sandbox = await host.run("stuck", "sleep 1000 & exec sleep 1000");
      const bystander = await host.run("bystander", sleeping);
      const pids = await freeze(sandbox);
      expect(pids.length, "its init process and two more").toBe(3);
      const slowestMs = await othersLiveDuring(() => endsInVain(() => stop("stuck")));
      expect(slowestMs).toBeLessThan(promptMs);
      await expectEvidence("stuck", pids);
      expect(whereIs(await host.get("stuck"))).toEqual({ state: "STOPPING", reason: "REQUESTED" });

      await host.daemon.kill("SIGKILL");
      await host.daemon.start();
      await othersLiveDuring(() => new Promise((resolve) => setTimeout(resolve, triesMs)));
      await expectEvidence("stuck", pids);
      expect(await host.get("bystander")).toEqual(bystander);

      thaw();
      const stopped = await host.until("stuck", isIn(SandboxState.STOPPED));
      expect(stopped.status?.stuck).toBeUndefined();
      expect(await explained("stuck")).toBeUndefined();
      await host.sandboxes.startSandbox({ sandboxId: "stuck" });
      expect(whereIs(await host.get("stuck")).state).toBe("RUNNING");
      await witness.check(host);
    });

    test.each([
      ["while it runs", async () => {}],
      ["while it is to stop", () => endsInVain(() => stop("stuck"))],
    ])(
      "that is deleted %s is told as stuck once, holds up nobody else, and goes as soon as its processes can end",
      async (_when, prepare) => {
        const pids = await freeze(await host.run("stuck", sleeping));
        await prepare();
        const slowestMs = await othersLiveDuring(() => endsInVain(() => remove("stuck")));
        expect(slowestMs).toBeLessThan(promptMs);
        await expectEvidence("stuck", pids);
        expect(whereIs(await host.get("stuck")).state).toBe("DELETING");

        thaw();
        const call = () => refusalOf(host.get("stuck"));
        await eventually("its end", call, ({ reason }) => reason === "SANDBOX_NOT_FOUND", 40_000);
        expect(await host.containers()).toEqual([]);
        await witness.check(host);
      },
    );
  },
);
