// Creates, stops and deletes while the daemon is killed again and again; then every promise is checked at once.

import { expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { witnessEvents } from "../harness/events.ts";
import {
  eventually,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

const durationMs = 30_000;
const callers = 4;

/** What callers were told: the sandboxes that must be there, and those that must not. */
interface Told {
  readonly created: Set<string>;
  readonly deleted: Set<string>;
}

/** One caller: creates, sometimes stops, sometimes deletes; an answer that is lost decides nothing. */
async function work(host: TestHost, caller: number, told: Told, isOver: () => boolean): Promise<void> {
  for (let turn = 0; !isOver(); turn += 1) {
    const sandboxId = `c${caller}-${turn}`;
    try {
      const wait = turn % 3 !== 0;
      const request = { sandboxId, tenant, spec: specOf(sleeping), wait };
      await host.sandboxes.createSandbox(request, { timeoutMs: 10_000 });
      told.created.add(sandboxId);
      if (turn % 4 === 1) await host.sandboxes.stopSandbox({ sandboxId }, { timeoutMs: 10_000 });
      if (turn % 2 === 0) {
        // whether it exists is open until the answer
        told.created.delete(sandboxId);
        await host.sandboxes.deleteSandbox({ sandboxId }, { timeoutMs: 10_000 });
        told.deleted.add(sandboxId);
      }
    } catch {
      // the daemon was killed under the call, or does not serve yet
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

test.skipIf(engineObstacle)(
  "no kill loses, doubles or leaks a sandbox, or breaks the order of events",
  async () => {
    const witness = await witnessEvents();
    const config = { engine: { relist_period: "1s", orphan_grace: "1s" }, ...witness.config };
    const host = await startHost({ config });
    try {
      const told: Told = { created: new Set(), deleted: new Set() };
      const end = performance.now() + durationMs;
      const isOver = () => performance.now() > end;
      const working = Promise.all(
        Array.from({ length: callers }, (_, caller) => work(host, caller, told, isOver)),
      );
      let kills = 0;
      while (!isOver()) {
        await new Promise((resolve) => setTimeout(resolve, 800 + Math.random() * 1_200));
        await host.daemon.kill("SIGKILL");
        await host.daemon.start();
        kills += 1;
      }
      await working;
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
      expect((await refusalOf(host.get("c0-0"))).reason).toBe("SANDBOX_NOT_FOUND");
    } finally {
      await host.daemon.cleanup();
      await witness.close();
    }
  },
);
