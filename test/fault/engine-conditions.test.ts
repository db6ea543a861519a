// Engines that cannot be used, each for its own reason: the host says which and what to do, and goes on by itself.

import { chmodSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { DaemonOptions } from "../harness/daemon.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type EngineDoor, openDoor } from "../harness/engine-door.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import { eventually, present, refusalOf, sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";

/** A user who may read everything, so that it matters not where the program is, and do nothing else. */
const uid = 54_321;
const asUser = [
  ...["setpriv", "--reuid", String(uid), "--regid", String(uid), "--clear-groups"],
  ...["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"],
];

interface Case {
  readonly condition: string;
  readonly hint: RegExp;
  readonly options?: DaemonOptions;
  /** Makes the engine behind the door unusable. */
  readonly spoil: (door: EngineDoor) => void;
  readonly mend: (door: EngineDoor) => void;
}

const cases: readonly Case[] = [
  {
    condition: "ENGINE_TOO_OLD",
    hint: /20\.10 or newer/,
    spoil: (door) => door.speak({ least: "1.12", most: "1.40" }),
    mend: (door) => door.mend(),
  },
  {
    condition: "ENGINE_ACCESS_DENIED",
    hint: /user/,
    options: { uid, launcher: asUser },
    spoil: (door) => chmodSync(door.socket, 0o600),
    mend: (door) => chmodSync(door.socket, 0o666),
  },
  {
    condition: "CGROUP_UNSUPPORTED",
    hint: /native\.cgroupdriver/,
    spoil: (door) => {
      const answered = (info: object) => ({ ...info, CgroupDriver: "none" });
      door.rule({ path: /^\/info$/, fault: { kind: "change", answered } });
    },
    mend: (door) => door.mend(),
  },
];

describe.skipIf(engineObstacle !== undefined)(`an unusable engine (${engineObstacle ?? "engine"})`, () => {
  let door: EngineDoor;
  let witness: EventWitness;
  let host: TestHost;
  const begin = async (options: DaemonOptions = {}): Promise<void> => {
    witness = await witnessEvents();
    host = await startHost({ ...options, door: door.socket, config: witness.config });
  };
  afterEach(async () => {
    await host?.daemon.cleanup();
    await witness?.close();
    await door?.close();
  });

  const statusOf = async (service: string) =>
    HealthCheckResponse_ServingStatus[(await host.daemon.client(Health).check({ service })).status];
  const hostNow = async () => present((await host.host.getHost({})).host);
  const activeNow = async () => (await hostNow()).conditions.filter(({ active }) => active);

  test.each(cases)("$condition from the start is told with a hint, and ends by itself", async (one) => {
    door = await openDoor(sharedEngine());
    one.spoil(door);
    await begin(one.options);
    expect(await statusOf("")).toBe("SERVING");
    expect(await statusOf(SandboxService.typeName)).toBe("NOT_SERVING");
    const [condition, ...others] = await activeNow();
    expect(HostConditionType[condition?.type ?? 0]).toBe(one.condition);
    expect(condition?.hint).toMatch(one.hint);
    expect(others).toEqual([]);
    expect((await hostNow()).accepting).toBe(false);
    const refused = await refusalOf(host.run("early", sleeping));
    expect(refused).toMatchObject({ code: "Unavailable", reason: "ENGINE_UNAVAILABLE" });
    expect(refused.message).toContain(one.condition);
    expect((await host.sandboxes.listSandboxes({})).sandboxes).toEqual([]);
    expect(await host.containers()).toEqual([]);

    one.mend(door);
    const status = () => statusOf(SandboxService.typeName);
    // asked every second, so well before the comparison that is due in 30 s
    await eventually("service", status, (now) => now === "SERVING", 10_000);
    expect(await activeNow()).toEqual([]);
    if (one.options?.uid === undefined) {
      expect((await host.run("late", sleeping)).status?.state).toBe(SandboxState.RUNNING);
    } else {
      // who may use the engine, and not the kernel's cgroups, cannot hold anybody to anything
      expect(await refusalOf(host.run("late", sleeping))).toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    }
    await host.sandboxes.deleteSandbox({ sandboxId: "late" });
    await expectToldOnce(one.condition);
  });

  /** As begun and as ended, in events that keep their contract. */
  async function expectToldOnce(condition: string): Promise<void> {
    const events = await witness.check(host);
    const told = events.filter(({ type }) => type === EventType.HOST_CONDITION_CHANGED);
    expect(told.map(({ condition: of }) => [HostConditionType[of?.type ?? 0], of?.active])).toEqual([
      [condition, true],
      [condition, false],
    ]);
  }

  test("an engine that is replaced by an older one while sandboxes run is told, and they run on", async () => {
    door = await openDoor(sharedEngine());
    await begin();
    const before = await host.run("runs", sleeping);
    door.speak({ least: "1.12", most: "1.40" });
    door.cutAll();
    await eventually(
      "the condition",
      activeNow,
      ([found]) => found?.type === HostConditionType.ENGINE_TOO_OLD,
    );
    expect(await host.get("runs"), "reads are answered").toEqual(before);
    door.mend();
    door.cutAll();
    await eventually("its end", activeNow, (found) => found.length === 0);
    expect(await host.get("runs")).toEqual(before);
    await host.sandboxes.deleteSandbox({ sandboxId: "runs" });
    await witness.check(host);
  });

  test("an engine that speaks no version as old as 1.41 is spoken to in its own", async () => {
    door = await openDoor(sharedEngine());
    // Docker Engine 29 and later
    door.speak({ least: "1.44", most: "1.52" });
    await begin();
    expect(await activeNow()).toEqual([]);
    expect((await hostNow()).engine?.apiVersion).toBe("1.52");
    expect((await host.run("new", sleeping)).status?.state).toBe(SandboxState.RUNNING);
    await host.sandboxes.deleteSandbox({ sandboxId: "new" });
    await witness.check(host);
  });
});
