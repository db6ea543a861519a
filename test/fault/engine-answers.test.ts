// An engine whose answers come late, half, wrong or not at all, while it did what it was asked: what the daemon makes of it.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type EngineDoor, openDoor, type Rule } from "../harness/engine-door.ts";
import { type EventWitness, eventsAfter, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const inspects = /^\/containers\/[^/]+\/json$/;
const verbs = {
  create: { method: "POST", path: /^\/containers\/create$/ },
  start: { method: "POST", path: /^\/containers\/[^/]+\/start$/ },
  stop: { method: "POST", path: /^\/containers\/[^/]+\/stop$/ },
  remove: { method: "DELETE", path: /^\/containers\/[^/]+$/ },
};
type Verb = keyof typeof verbs;
const anyButEvents = /^(?!\/events)/;

describe.skipIf(engineObstacle !== undefined)(
  `an engine behind a bad line (${engineObstacle ?? "engine"})`,
  () => {
    let door: EngineDoor;
    let witness: EventWitness;
    let host: TestHost;
    beforeEach(async () => {
      door = await openDoor(sharedEngine());
      witness = await witnessEvents();
      host = await startBehindDoor("1s");
    });
    afterEach(async () => {
      await host?.daemon.cleanup();
      await witness?.close();
      await door?.close();
    });

    function startBehindDoor(relistPeriod: string): Promise<TestHost> {
      const timeouts = { list: "2s", inspect: "2s", create: "2s", start: "2s", stop: "2s", remove: "2s" };
      const engine = { relist_period: relistPeriod, orphan_grace: "1s", timeouts };
      return startHost({ door: door.socket, config: { engine, ...witness.config } });
    }

    const asked = (verb: Verb) =>
      door.calls.filter(({ method, path }) => method === verbs[verb].method && verbs[verb].path.test(path));

    const conditions = async () =>
      present((await host.host.getHost({})).host)
        .conditions.filter(({ active }) => active)
        .map(({ type }) => HostConditionType[type]);

    /** Once the line is good again: each sandbox rests, has one container or none, and leaves nothing behind. */
    async function expectWhole(): Promise<void> {
      door.mend();
      const rests = [SandboxState.RUNNING, SandboxState.STOPPED, SandboxState.FAILED];
      const list = async () => (await host.sandboxes.listSandboxes({ pageSize: 1000 })).sandboxes;
      const sandboxes = await eventually(
        "rest",
        list,
        (found) => found.every(({ status }) => rests.includes(status?.state ?? 0)),
        60_000,
      );
      const containers = await host.containers();
      expect(new Set(containers.map(({ Names }) => Names[0])).size, "one each").toBe(containers.length);
      expect(
        containers
          .filter(({ State }) => State === "running")
          .map(({ Id }) => Id)
          .sort(),
        "what runs is known to run",
      ).toEqual(
        sandboxes
          .filter(isIn(SandboxState.RUNNING))
          .map(({ status }) => status?.containerId)
          .sort(),
      );
      await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
      await eventually("no container", host.containers, (found) => found.length === 0);
      await witness.check(host);
    }

    test.each<[Verb, "request" | "half"]>([
      ["create", "request"],
      ["create", "half"],
      ["start", "request"],
      ["stop", "request"],
      ["remove", "request"],
    ])("%s, done but cut off after the %s, is found to be done, and asked once", async (verb, after) => {
      door.rule({ ...verbs[verb], times: 1, fault: { kind: "cut", after } });
      expect((await host.run("cut", sleeping)).status?.state).toBe(SandboxState.RUNNING);
      await host.sandboxes.stopSandbox({ sandboxId: "cut" });
      expect(whereIs(await host.get("cut"))).toEqual({ state: "STOPPED", reason: "REQUESTED" });
      await host.sandboxes.deleteSandbox({ sandboxId: "cut" });
      expect(await host.containers()).toEqual([]);
      for (const one of Object.keys(verbs) as Verb[]) expect(asked(one), one).toHaveLength(1);
      await expectWhole();
    });

    test("answers that all break off half-way end by the deadlines, and are asked for again", async () => {
      await host.run("before", sleeping);
      door.rule({ path: anyButEvents, fault: { kind: "cut", after: "half" } });
      const creating = Promise.allSettled(["a", "b"].map((id) => host.run(id, sleeping)));
      await eventually("the condition", conditions, (found) => found.includes("ENGINE_UNRESPONSIVE"));
      expect((await host.get("before")).status?.state, "reads are answered").toBe(SandboxState.RUNNING);
      door.mend();
      await creating;
      await eventually("its end", conditions, (found) => found.length === 0);
      await expectWhole();
    });

    test("what is carried out after its deadline is found, and not done twice", async () => {
      const mend = door.rule({ method: "POST", fault: { kind: "late", ms: 2_500 } });
      const creating = Promise.all(["a", "b", "c"].map((id) => host.run(id, sleeping)));
      await eventually(
        "a late create",
        () => asked("create").length,
        (count) => count >= 3,
      );
      await new Promise((resolve) => setTimeout(resolve, 2_000));
      mend();
      for (const { status } of await creating) expect(status?.state).toBe(SandboxState.RUNNING);
      await expectWhole();
    });

    test("of an engine that fails three calls of ten, what was told to run runs, and nothing is left", async () => {
      const fault = { kind: "answer", status: 500, body: { message: "it failed" } } as const;
      door.rule({ path: anyButEvents, share: 0.3, fault });
      const ids = Array.from({ length: 10 }, (_, index) => `any-${index}`);
      const told = await Promise.all(ids.map(tryToRun));
      door.mend();
      for (const [index, isRunning] of told.entries()) {
        const { state } = whereIs(await host.get(ids[index] ?? ""));
        expect(state).toBe(isRunning ? "RUNNING" : "FAILED");
      }
      await expectWhole();
    });

    /** Asks for a sandbox until the engine was held to be there. Returns whether it was said to run. */
    async function tryToRun(id: string): Promise<boolean> {
      for (;;) {
        try {
          await host.run(id, sleeping);
          return true;
        } catch (error) {
          const { reason } = await refusalOf(Promise.reject(error));
          if (reason !== "ENGINE_UNAVAILABLE") return false;
          await new Promise((resolve) => setTimeout(resolve, 200));
        }
      }
    }

    describe("a caller's word that comes while the engine is asked", () => {
      const slow = { kind: "late", ms: 1_000 } as const;
      const looked = (since: number) => () =>
        door.calls.filter(({ path, beganMs }) => beganMs > since && inspects.test(path)).length;
      const isSo = (count: number) => count > 0;

      test("a stop, while the image is looked up, ends the start before it begins", async () => {
        door.rule({ path: /^\/images\//, fault: slow });
        await host.sandboxes.createSandbox({ sandboxId: "x", tenant, spec: specOf(sleeping), wait: false });
        await eventually(
          "the question",
          () => door.calls.filter(({ path }) => /^\/images\//.test(path)).length,
          isSo,
        );
        const { sandbox } = await host.sandboxes.stopSandbox({ sandboxId: "x" });
        expect(whereIs(present(sandbox))).toEqual({ state: "STOPPED", reason: "REQUESTED" });
        expect(asked("create")).toEqual([]);
        await expectWhole();
      });

      test.each(["stopSandbox", "deleteSandbox"] as const)(
        "%s, while the limits are read back",
        async (verb) => {
          door.rule({ ...verbs.start, fault: { kind: "late", ms: 500 } });
          await host.sandboxes.createSandbox({ sandboxId: "x", tenant, spec: specOf(sleeping), wait: false });
          await eventually("the start", () => asked("start").length, isSo);
          door.rule({ path: inspects, fault: slow });
          await eventually("the question", looked(performance.now()), isSo);
          await host.sandboxes[verb]({ sandboxId: "x" }, { timeoutMs: 20_000 });
          const running = (await host.containers()).filter(({ State }) => State === "running");
          expect(running, "what was told to end does not run").toEqual([]);
          await expectWhole();
        },
      );

      test.each(["stopSandbox", "deleteSandbox"] as const)("%s, while an end is looked at", async (verb) => {
        await host.run("x", "exec sleep 1");
        door.rule({ path: inspects, fault: slow });
        await eventually("the question", looked(performance.now()), isSo);
        await host.sandboxes[verb]({ sandboxId: "x" }, { timeoutMs: 20_000 });
        await expectWhole();
      });
    });

    describe("a container that is not what was asked for never runs", () => {
      const loosened = (found: Readonly<Record<string, unknown>>) => ({
        ...found,
        HostConfig: { ...(found["HostConfig"] as object), Privileged: true },
      });
      const loose = { path: inspects, fault: { kind: "change", answered: loosened } } as const;

      test.each<[string, Rule]>([
        [
          "the create's answer is lost",
          { ...verbs.create, times: 1, fault: { kind: "cut", after: "request" } },
        ],
        [
          "its removal fails",
          { ...verbs.remove, times: 1, fault: { kind: "answer", status: 500, body: {} } },
        ],
      ])("also when %s", async (_what, rule) => {
        door.rule(rule);
        door.rule(loose);
        expect(await refusalOf(host.run("loose", sleeping))).toMatchObject({ reason: "HARDENING_MISMATCH" });
        expect(asked("start")).toEqual([]);
        await eventually("its removal", host.containers, (found) => found.length === 0);
        await expectWhole();
      });
    });

    describe("an event stream", () => {
      const events = /^\/events$/;
      const failuresOf = async (sandboxId: string) =>
        (await eventsAfter(host, 0n)).filter(
          ({ sandbox }) => sandbox?.sandboxId === sandboxId && isIn(SandboxState.FAILED)(sandbox),
        );

      test("in pieces of three bytes tells as much as one in lines", async () => {
        await host.daemon.cleanup();
        let bytesBehind = 0;
        const behind = (bytes: number) => {
          bytesBehind = bytes;
        };
        door.rule({ path: events, fault: { kind: "pieces", bytes: 3, behind } });
        // a comparison would see the end too, and could not tell whose doing it was
        host = await startBehindDoor("10m");
        const sandbox = await host.run("killed", sleeping);
        // while its start is still being told, that would have the daemon look, and see an end by nobody knows whom
        await eventually(
          "the stream to be at rest",
          async () => {
            const found = [];
            for (let round = 0; round < 5; round += 1) {
              await new Promise((resolve) => setTimeout(resolve, 100));
              found.push(bytesBehind);
            }
            return found;
          },
          (found) => found.every((bytes) => bytes === 0),
        );
        await host.docker.getContainer(present(sandbox.status).containerId).kill();
        const now = await host.until("killed", isIn(SandboxState.FAILED));
        expect(whereIs(now).reason, "only an event tells who sent the signal").toBe("EXTERNAL");
        await expectWhole();
      });

      test("that is cut again and again loses and repeats no end of a sandbox", async () => {
        const ids = Array.from({ length: 6 }, (_, index) => `ends-${index}`);
        await Promise.all(ids.map((id, index) => host.run(id, `sleep ${1 + index / 2}; exit 3`)));
        for (let cut = 0; cut < 10; cut += 1) {
          door.cutAll();
          await new Promise((resolve) => setTimeout(resolve, 400));
        }
        for (const id of ids) {
          await host.until(id, isIn(SandboxState.FAILED));
          expect(await failuresOf(id), id).toHaveLength(1);
        }
        await expectWhole();
      });

      test("that never speaks is made good by the next comparison", async () => {
        door.rule({ path: events, fault: { kind: "silence" } });
        door.cutAll();
        await host.run("ends", "sleep 1; exit 3");
        const sandbox = await host.until("ends", isIn(SandboxState.FAILED));
        expect(whereIs(sandbox).reason).toBe("EXITED");
        await expectWhole();
      });
    });
  },
);
