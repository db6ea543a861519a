// Creates, stops and deletes while the daemon is killed again and again; then every promise is checked at once.
// SANDBOXD_TEST_CRASH_SCHEDULES=<number> begins so many short lives of a sandbox, instead of those of 20 seconds.

import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { witnessEvents } from "../harness/events.ts";
import { eventually, refusalOf, specOf, startHost, type TestHost, tenant } from "../harness/sandboxes.ts";

const { SANDBOXD_TEST_CRASH_SCHEDULES: asked } = process.env;
const schedules = asked === undefined ? undefined : Number(asked);
const durationMs = 20_000;
const callers = 4;
/** So many sandboxes each caller leaves behind, and deletes the oldest when there are more. */
const mostLeft = 4;

/** Not to end by itself in a long run. */
const enduring = "exec sleep 100000";

/** What callers were told: the sandboxes that must be there, and those that must not. */
interface Told {
  readonly created: Set<string>;
  readonly deleted: Set<string>;
}

/** One caller, schedule after schedule: the short life of one sandbox. A stop or a delete whose answer is lost decides nothing. */
async function work(
  { sandboxes }: TestHost,
  told: Told,
  nextId: () => string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const options = { timeoutMs: 10_000, signal };
  const left: string[] = [];
  for (let turn = 0; ; turn += 1) {
    const sandboxId = nextId();
    if (sandboxId === undefined) return;
    const request = { sandboxId, tenant, spec: specOf(enduring), wait: turn % 3 !== 0 };
    // the same again means the same sandbox
    while (!(await answered(() => sandboxes.createSandbox(request, options)))) if (signal.aborted) return;
    told.created.add(sandboxId);
    left.push(sandboxId);
    if (turn % 4 === 1) await answered(() => sandboxes.stopSandbox({ sandboxId }, options));
    const isToGo = turn % 2 === 0;
    for (const id of [...left.splice(0, left.length - mostLeft), ...(isToGo ? left.splice(-1) : [])]) {
      // whether it exists is open until the answer
      told.created.delete(id);
      if (await answered(() => sandboxes.deleteSandbox({ sandboxId: id }, options))) told.deleted.add(id);
      else left.unshift(id);
    }
  }
}

/** Whether a call was answered. If not, the daemon was killed under it, or does not serve yet. */
async function answered(call: () => Promise<unknown>): Promise<boolean> {
  try {
    await call();
    return true;
  } catch {
    await sleep(50);
    return false;
  }
}

test.skipIf(engineObstacle)(
  "no kill loses, doubles or leaks a sandbox, or breaks the order of events",
  async () => {
    const failing = new AbortController();
    const witness = await witnessEvents();
    const config = { engine: { relist_period: "1s", orphan_grace: "1s" }, ...witness.config };
    const host = await startHost({ config });
    try {
      const told: Told = { created: new Set(), deleted: new Set() };
      const { signal } = failing;
      const beganAt = performance.now();
      const end = beganAt + durationMs;
      let begun = 0;
      const isOver = () => (schedules === undefined ? performance.now() > end : begun >= schedules);
      const nextId = () => (isOver() ? undefined : `c-${begun++}`);
      const working = Promise.all(Array.from({ length: callers }, () => work(host, told, nextId, signal)));
      let kills = 0;
      let killedAt = beganAt;
      while (!isOver()) {
        const pauseMs = 2_000 - (performance.now() - killedAt);
        // a start may take most of that
        await sleep(schedules === undefined ? 800 + Math.random() * 1_200 : Math.max(1_000, pauseMs));
        killedAt = performance.now();
        await host.daemon.kill("SIGKILL");
        await host.daemon.start();
        kills += 1;
      }
      await working;
      const seconds = Math.round((performance.now() - beganAt) / 1_000);
      console.log(`${begun} schedules, ${kills} kills in ${seconds} s`);
      expect(kills).toBeGreaterThan(3);
      expect(told.created.size + told.deleted.size, "work was done in between").toBeGreaterThan(5);

      const list = async () => (await host.sandboxes.listSandboxes({ pageSize: 1000 })).sandboxes;
      const settled = [SandboxState.RUNNING, SandboxState.STOPPED, SandboxState.FAILED];
      const sandboxes = await eventually(
        "rest",
        list,
        (found) => found.every(({ status }) => settled.includes(status?.state ?? 0)),
        60_000,
      );
      const known = new Set(sandboxes.map(({ sandboxId }) => sandboxId));
      const nameOf = (names: readonly string[]) => names[0]?.split(`${host.daemon.hostId}-`)[1] ?? "";
      const containers = await eventually("no container without a sandbox", host.containers, (found) =>
        found.every(({ Names }) => known.has(nameOf(Names))),
      );
      const held = containers.map(({ Names }) => nameOf(Names));
      expect(new Set(held).size, "one container per sandbox").toBe(held.length);

      for (const id of told.created) expect(known, "acknowledged creates are there").toContain(id);
      for (const id of told.deleted) expect(known, "acknowledged deletes are final").not.toContain(id);
      const running = containers.filter(({ State }) => State === "running").map(({ Names }) => nameOf(Names));
      const expected = sandboxes.filter(({ status }) => status?.state === SandboxState.RUNNING);
      expect(running.sort()).toEqual(expected.map(({ sandboxId }) => sandboxId).sort());
      const failed = sandboxes.filter(({ status }) => status?.state === SandboxState.FAILED);
      expect(failed.map(({ status }) => status?.transition?.message)).toEqual([]);

      const events = await witness.check(host);
      const ended = events.filter(({ type }) => type === EventType.SANDBOX_DELETED);
      expect(ended.length, "some were deleted in between").toBeGreaterThan(0);
      for (const id of known) await host.sandboxes.deleteSandbox({ sandboxId: id });
      expect(await host.containers()).toEqual([]);
      expect((await refusalOf(host.get("c-0"))).reason).toBe("SANDBOX_NOT_FOUND");
    } finally {
      failing.abort();
      await host.daemon.cleanup();
      await witness.close();
    }
  },
  180_000 + (schedules ?? 0) * 6_000,
);
