// That a host takes nothing new once it is cordoned, and that a drain ends everything, whoever goes away meanwhile.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { DrainPolicy, type Host } from "../../gen/sandboxd/v1/host_pb.ts";
import type { DrainHostResponse } from "../../gen/sandboxd/v1/host_service_pb.ts";
import { RestartMode } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import { ActorKind, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { createDevScheduler } from "../../src/dev-scheduler/server.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";
import { silentLog } from "../unit/scheduler/fixture.ts";

/** Takes a second to end when it is told to. */
const lingering = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done";
const grace = { seconds: 10n };

describe.skipIf(engineObstacle !== undefined)(`drain (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeEach(async () => {
    host = await startHost();
  });
  afterEach(() => host?.daemon.cleanup());

  const run = (sandboxId: string, spec: SpecInit) =>
    host.sandboxes.createSandbox({ sandboxId, tenant, spec });
  const create = (sandboxId: string) => run(sandboxId, specOf(sleeping));
  const now = async (): Promise<Host> => present((await host.host.getHost({})).host);
  const until = (what: string, isSo: (host: Host) => boolean) => eventually(what, now, isSo);
  const isEmpty = ({ schedule }: Host) => schedule?.schedulable === false && schedule.drain === undefined;

  async function drained(request: Parameters<TestHost["host"]["drainHost"]>[0]) {
    const told: DrainHostResponse[] = [];
    for await (const message of host.host.drainHost(request)) told.push(message);
    return told;
  }

  /** Asks for a drain, hears once that it goes on, and hangs up. */
  async function beginDrain(
    request: Parameters<TestHost["host"]["drainHost"]>[0],
  ): Promise<DrainHostResponse> {
    for await (const message of host.host.drainHost(request)) return message;
    throw new Error("the drain told nothing");
  }

  test("a cordoned host makes nothing new, says why, and works again once it is opened", async () => {
    await create("before");
    await create("idle");
    await host.sandboxes.stopSandbox({ sandboxId: "idle" });
    await host.host.setSchedulable({ schedulable: false, reason: "broken fan" });
    const containers = await host.containers();

    const refused = await refusalOf(create("after"));
    expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "HOST_CORDONED" });
    expect(refused.message).toContain("broken fan");
    expect((await refusalOf(host.get("after"))).reason).toBe("SANDBOX_NOT_FOUND");
    expect((await refusalOf(host.sandboxes.startSandbox({ sandboxId: "idle" }))).reason).toBe(
      "HOST_CORDONED",
    );
    expect(await host.containers()).toHaveLength(containers.length);
    expect((await create("before")).sandbox?.status?.state, "the same create again").toBe(
      SandboxState.RUNNING,
    );
    expect(await now()).toMatchObject({
      accepting: false,
      schedule: { schedulable: false, reason: "broken fan", actor: { kind: ActorKind.CALLER } },
    });

    await host.daemon.restart();
    expect((await refusalOf(create("after"))).reason, "after a restart of the daemon").toBe("HOST_CORDONED");
    await host.host.setSchedulable({ schedulable: true });
    expect((await now()).accepting).toBe(true);
    await create("after");
    await host.sandboxes.startSandbox({ sandboxId: "idle" });
  });

  test("a drain tells what remains, ends with done, and leaves its caller as the actor", async () => {
    await run("a", { ...specOf(lingering), stopGrace: grace });
    await create("b");
    await host.sandboxes.pauseSandbox({ sandboxId: "b" });
    const told = await drained({ reason: "new kernel" });
    expect(told[0]).toMatchObject({ done: false, remaining: 2, sandboxIds: ["a", "b"] });
    expect(told.at(-1)).toMatchObject({ done: true, remaining: 0, sandboxIds: [] });
    const counts = told.map(({ remaining }) => remaining);
    expect(counts).toEqual(counts.toSorted((a, b) => b - a));
    for (const id of ["a", "b"]) {
      const sandbox = await host.get(id);
      expect(whereIs(sandbox)).toEqual({ state: "STOPPED", reason: "DRAINED" });
      const { actor, message } = present(sandbox.status?.transition);
      expect(message).toBe("the host is drained: new kernel");
      expect(actor).toEqual((await now()).schedule?.actor);
      expect(actor?.kind).toBe(ActorKind.CALLER);
      expect(actor?.identity).not.toBe("");
    }
    const { events } = await host.events.listEvents({ filter: { types: [EventType.HOST_SCHEDULE_CHANGED] } });
    expect(events.map(({ schedule }) => [schedule?.schedulable, schedule?.drain?.remaining])).toEqual([
      [false, 2],
      [false, undefined],
    ]);
  });

  test("a drain goes on without its caller, and without the daemon that began it", async () => {
    await Promise.all(["a", "b"].map((id) => run(id, { ...specOf(lingering), stopGrace: grace })));
    expect(await beginDrain({ reason: "new kernel" })).toMatchObject({ remaining: 2 });
    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    await until("an empty host", isEmpty);
    for (const id of ["a", "b"]) expect(whereIs(await host.get(id)).reason).toBe("DRAINED");
    expect((await refusalOf(create("c"))).reason).toBe("HOST_CORDONED");
  });

  test("with WAIT what ends by itself is not stopped, and the rest is at the deadline", async () => {
    await run("short", specOf("sleep 1"));
    await create("long");
    const wait = { policy: DrainPolicy.WAIT, deadline: { seconds: 600n } };
    await beginDrain(wait);
    const short = await host.until("short", isIn(SandboxState.STOPPED));
    expect(whereIs(short).reason).toBe("COMPLETED");
    expect((await host.get("long")).status?.state).toBe(SandboxState.RUNNING);
    expect((await refusalOf(beginDrain({ policy: DrainPolicy.STOP }))).reason).toBe("INVALID_STATE");
    expect((await now()).schedule?.drain).toMatchObject({ policy: DrainPolicy.WAIT, remaining: 1 });

    const told = await drained({ ...wait, deadline: { seconds: 1n } });
    expect(told.at(-1)).toMatchObject({ done: true });
    expect(whereIs(await host.get("long")).reason).toBe("DRAINED");
  });

  test("opening the host ends a drain; what it has not stopped runs on", async () => {
    await create("a");
    const ending = refusalOf(drained({ policy: DrainPolicy.WAIT }));
    await until("a drain", ({ schedule }) => schedule?.drain !== undefined);
    await host.host.setSchedulable({ schedulable: true });
    expect(await ending).toMatchObject({ code: "Aborted", reason: "DRAIN_CANCELED" });
    expect((await host.get("a")).status?.state).toBe(SandboxState.RUNNING);
    await create("b");
  });

  test("a restart policy brings nothing back that a drain has ended", async () => {
    const restart = { mode: RestartMode.UNLESS_STOPPED, delay: { nanos: 100_000_000 }, maxAttempts: 1_000 };
    await run("steady", { ...specOf(sleeping), restart });
    await run("failing", { ...specOf("sleep 0.2; exit 1"), restart });
    await host.until("failing", ({ status }) => (status?.restarts?.count ?? 0) > 0);
    await drained({});
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    for (const id of ["steady", "failing"]) {
      expect(whereIs(await host.get(id))).toEqual({ state: "STOPPED", reason: "DRAINED" });
    }
    expect((await host.containers()).filter(({ State }) => State === "running")).toEqual([]);
  });

  test("a scheduler that has lost its term neither cordons nor drains", async () => {
    await create("a");
    await host.host.setSchedulable({ schedulable: true }, { headers: { "sandboxd-term": "7" } });
    const headers = { "sandboxd-term": "6" };
    const cordon = host.host.setSchedulable({ schedulable: false }, { headers });
    expect((await refusalOf(cordon)).reason).toBe("STALE_TERM");
    const drain = host.host.drainHost({}, { headers })[Symbol.asyncIterator]();
    expect((await refusalOf(drain.next())).reason).toBe("STALE_TERM");
    expect((await now()).schedule?.schedulable).toBe(true);
    expect((await host.get("a")).status?.state).toBe(SandboxState.RUNNING);
  });

  test("who watches the host sees it cordoned and opened", async () => {
    const seen: boolean[] = [];
    for await (const { update } of host.host.watchHost({ statsPeriod: { seconds: 3_600n } })) {
      if (update.case !== "host") continue;
      const { schedule, accepting } = update.value;
      expect(accepting).toBe(schedule?.schedulable);
      if (seen.at(-1) !== schedule?.schedulable) seen.push(present(schedule).schedulable);
      if (seen.length === 3) break;
      await host.host.setSchedulable({ schedulable: seen.length === 2 });
    }
    expect(seen).toEqual([true, false, true]);
  });
});

test.skipIf(engineObstacle !== undefined)("the scheduler is told of a drain on its stream", async () => {
  const scheduler = await createDevScheduler({ listen: { host: "127.0.0.1", port: 0 }, log: silentLog });
  const host = await startHost({ config: { scheduler: { endpoints: [scheduler.url] } } });
  try {
    const viewOf = () => scheduler.host(host.daemon.hostId);
    await eventually("a session", viewOf, (view) => view?.host?.schedule?.schedulable === true);
    for await (const _ of host.host.drainHost({ reason: "new kernel" }));
    await eventually("the news", viewOf, (view) => view?.host?.schedule?.reason === "drained: new kernel");
  } finally {
    await host.daemon.cleanup();
    await scheduler.close();
  }
});
