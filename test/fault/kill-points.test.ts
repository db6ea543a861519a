// The daemon is killed at each call that a verb makes to the engine: before the engine gets it, after the engine has done it,
// and after its answer. Then it is started again, and the caller asks for the same.
//
// Killed before the first call, the intent is on disk and nothing else is; after the answer to the last, the outcome is
// known to the daemon, and may be on disk or not.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type EngineDoor, openDoor, type Point } from "../harness/engine-door.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const isUnified = existsSync("/sys/fs/cgroup/cgroup.controllers");

/** The engine's calls, by what they are for. */
const calls = {
  "the lookup of the image": { method: "GET", path: /^\/images\/.+\/json$/ },
  "the creation": { method: "POST", path: /^\/containers\/create$/ },
  "the look at the container": { method: "GET", path: /^\/containers\/[^/]+\/json$/ },
  "the start": { method: "POST", path: /^\/containers\/[^/]+\/start$/ },
  "the stop": { method: "POST", path: /^\/containers\/[^/]+\/stop$/ },
  "the removal": { method: "DELETE", path: /^\/containers\/[^/]+$/ },
  "the change of limits": { method: "POST", path: /^\/containers\/[^/]+\/update$/ },
  "the pause": { method: "POST", path: /^\/containers\/[^/]+\/pause$/ },
  "the unpause": { method: "POST", path: /^\/containers\/[^/]+\/unpause$/ },
} as const;
type CallName = keyof typeof calls;

interface Limits {
  readonly memoryMebibytes: number;
  readonly pids: number;
}
const before: Limits = { memoryMebibytes: 32, pids: 32 };
const after: Limits = { memoryMebibytes: 48, pids: 40 };
const resourcesOf = ({ memoryMebibytes, pids }: Limits) => ({
  memoryBytes: BigInt(memoryMebibytes * mebibyte),
  pids: BigInt(pids),
});

describe.skipIf(engineObstacle !== undefined)(
  `a daemon that is killed (${engineObstacle ?? "engine"})`,
  () => {
    let door: EngineDoor;
    let witness: EventWitness;
    let host: LocalHost;
    let count = 0;
    beforeAll(async () => {
      door = await openDoor(sharedEngine());
      witness = await witnessEvents();
      const engine = { relist_period: "1s", orphan_grace: "1s" };
      host = await startHost({ door: door.socket, config: { engine, ...witness.config } });
    });
    afterAll(async () => {
      await host?.daemon.cleanup();
      await witness?.close();
      await door?.close();
    });

    const create = (sandboxId: string) =>
      host.sandboxes.createSandbox({ sandboxId, tenant, spec: specOf(sleeping, resourcesOf(before)) });

    /** Each verb: what it is asked of, how it is asked, the calls that it makes in their order, and what it comes to. */
    const verbs = {
      create: {
        prepare: async () => {},
        ask: create,
        makes: ["the lookup of the image", "the creation", "the look at the container", "the start"],
        comesTo: "RUNNING",
      },
      stop: {
        prepare: create,
        ask: (sandboxId: string) => host.sandboxes.stopSandbox({ sandboxId }),
        makes: ["the look at the container", "the stop"],
        comesTo: "STOPPED",
      },
      delete: {
        prepare: create,
        ask: (sandboxId: string) => host.sandboxes.deleteSandbox({ sandboxId }),
        makes: ["the look at the container", "the removal"],
        comesTo: "gone",
      },
      update: {
        prepare: create,
        ask: (sandboxId: string) =>
          host.sandboxes.updateSandbox({ sandboxId, resources: resourcesOf(after) }),
        makes: ["the look at the container", "the change of limits"],
        comesTo: "RUNNING",
      },
      pause: {
        prepare: create,
        ask: (sandboxId: string) => host.sandboxes.pauseSandbox({ sandboxId }),
        makes: ["the look at the container", "the pause"],
        comesTo: "PAUSED",
      },
      resume: {
        prepare: async (sandboxId: string) => {
          await create(sandboxId);
          await host.sandboxes.pauseSandbox({ sandboxId });
        },
        ask: (sandboxId: string) => host.sandboxes.resumeSandbox({ sandboxId }),
        makes: ["the look at the container", "the unpause"],
        comesTo: "RUNNING",
      },
    } as const;
    type Verb = keyof typeof verbs;

    const words: Readonly<Record<Point, string>> = {
      arrived: "before",
      done: "after the engine did",
      answered: "after the answer to",
    };
    /** A question changes nothing, so that it makes no difference whether the engine got it. */
    const pointsOf = (call: CallName, isLast: boolean): readonly Point[] => [
      "arrived",
      ...(calls[call].method === "GET" ? [] : (["done"] as const)),
      ...(isLast ? (["answered"] as const) : []),
    ];
    const table = (Object.keys(verbs) as Verb[]).flatMap((verb) =>
      verbs[verb].makes.flatMap((call, index, all) =>
        pointsOf(call, index === all.length - 1).map(
          (at) =>
            [
              `${words[at]} ${call} of ${verb === "update" ? "an" : "a"} ${verb}`,
              { verb, call, at },
            ] as const,
        ),
      ),
    );

    const stateOf = async (sandboxId: string) => {
      try {
        return whereIs(await host.get(sandboxId)).state;
      } catch (error) {
        const { reason } = await refusalOf(Promise.reject(error));
        return reason === "SANDBOX_NOT_FOUND" ? "gone" : reason;
      }
    };
    const containersOf = async (sandboxId: string) =>
      (await host.containers()).filter(({ Names }) => Names[0]?.endsWith(`-${sandboxId}`));

    /** What the kernel holds the sandbox to. */
    function held({ status }: Sandbox): Limits {
      const read = (controller: string, file: string) => {
        const folder = isUnified ? "" : controller;
        const path = join("/sys/fs/cgroup", folder, host.cgroupOf(present(status)), file);
        return Number(readFileSync(path, "utf8"));
      };
      return {
        memoryMebibytes: read("memory", isUnified ? "memory.max" : "memory.limit_in_bytes") / mebibyte,
        pids: read("pids", "pids.max"),
      };
    }
    const recorded = ({ spec }: Sandbox): Limits => {
      const { memoryBytes, pids } = present(present(spec).resources);
      return { memoryMebibytes: Number(memoryBytes) / mebibyte, pids: Number(pids) };
    };

    /** Kills the daemon when the call has come so far, and starts it again. */
    async function killedAt(call: CallName, at: Point, ask: () => Promise<unknown>): Promise<void> {
      let kill = () => {};
      const killed = new Promise<void>((resolve) => {
        kill = resolve;
      });
      door.rule({
        ...calls[call],
        times: 1,
        fault: {
          kind: "point",
          at,
          async reached() {
            await host.daemon.kill("SIGKILL");
            kill();
          },
        },
      });
      const asked = ask().catch(() => undefined);
      await Promise.race([killed, asked.then(() => killedSoon(killed))]);
      await asked;
      await host.daemon.start();
    }

    test.each(table)("%s, what was asked comes about, and once", async (_name, { verb, call, at }) => {
      const { prepare, ask, comesTo } = verbs[verb];
      count += 1;
      const id = `k${count}`;
      await prepare(id);
      const known = verb === "create" ? undefined : await host.get(id);
      await killedAt(call, at, () => ask(id));

      // what was asked for last is done without being asked again, but for new limits, which are wholly there or not at all
      await eventually(
        `${verb} after the kill`,
        () => stateOf(id),
        (state) => state === comesTo,
      );
      if (comesTo === "RUNNING") {
        const isSo = ({ kernel, record }: { readonly kernel: Limits; readonly record: Limits }) =>
          JSON.stringify(kernel) === JSON.stringify(record);
        const limits = async () => {
          const sandbox = await host.get(id);
          return { kernel: held(sandbox), record: recorded(sandbox) };
        };
        await eventually("the same limits in kernel and record", limits, isSo);
      }
      const [container] = await containersOf(id);
      const again = comesTo === "gone" ? undefined : await host.get(id);

      await ask(id);
      expect(await stateOf(id)).toBe(comesTo);
      const containers = await containersOf(id);
      if (comesTo === "gone") {
        expect(containers).toEqual([]);
        return;
      }
      const sandbox = await host.get(id);
      expect(
        containers.map(({ Id }) => Id),
        "one container, and the same",
      ).toEqual([present(container).Id]);
      expect(sandbox.status?.containerId).toBe(container?.Id);
      expect(sandbox.createTime, "the same sandbox").toEqual((known ?? again)?.createTime);
      if (comesTo === "RUNNING") {
        const limits = verb === "update" ? after : before;
        expect([held(sandbox), recorded(sandbox)]).toEqual([limits, limits]);
      }
    });

    test("all of them leave no container without a sandbox, and events that are ordered, unique and complete", async () => {
      const { sandboxes } = await host.sandboxes.listSandboxes({ pageSize: 1000 });
      const ids = sandboxes.map(({ status }) => present(status).containerId);
      expect((await host.containers()).map(({ Id }) => Id).sort()).toEqual(ids.sort());
      const ends = sandboxes.filter(({ status }) => status?.state === SandboxState.FAILED);
      expect(ends).toEqual([]);
      await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
      expect(await host.containers()).toEqual([]);
      await witness.check(host);
    });
  },
);

/** The caller may be answered, or cut off, a moment before the kill is through. */
async function killedSoon(killed: Promise<void>): Promise<void> {
  const timeout = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error("the verb made no such call")), 5_000).unref();
  });
  await Promise.race([killed, timeout]);
}
