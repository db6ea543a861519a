import { expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { holdsCapacity } from "../../../src/sandbox/record.ts";
import { moved } from "../../../src/sandbox/transition.ts";
import { containerOf, recordOf } from "./fixture.ts";
import { containerFor, gate, hostId, nowMs, reconciled } from "./reconciled.ts";

const caller = { kind: "CALLER", identity: "somebody" } as const;
const mebibyte = 2 ** 20;
const running = recordOf();
const { spec } = running;

test("an update never changes what is not this host's", async () => {
  const { manager, repository, containers, done } = reconciled([
    recordOf({ state: "STOPPED", wanted: "STOPPED", containerId: "" }),
  ]);
  containers.set("f1", containerOf({ id: "f1", name: `sandboxd-${hostId}-one`, labels: {} }));
  await manager.update({ id: "one", resources: { memoryBytes: 128 * mebibyte }, actor: caller });
  expect(done).toEqual([]);
  expect(repository.get("one")?.spec.resources.memoryBytes).toBe(128 * mebibyte);
});

test("the room that an update asks for is taken from the moment of its admission on", async () => {
  const two = recordOf({ id: "two", instance: "instance-two", state: "STOPPED", wanted: "STOPPED" });
  const larger = { ...spec, resources: { ...spec.resources, memoryBytes: 200 * mebibyte } };
  const { manager, engine, containers } = reconciled([running, { ...two, spec: larger }]);
  containers.set("c1", containerFor(running));
  const updating = gate();
  const update = engine.update;
  engine.update = async (container, limits) => {
    await updating.pass();
    await update(container, limits);
  };
  const updated = manager.update({ id: "one", resources: { memoryBytes: 400 * mebibyte }, actor: caller });
  await updating.reached;
  await expect(manager.start("two", { actor: caller })).rejects.toMatchObject({
    reason: "HOST_CAPACITY_EXCEEDED",
  });
  updating.open();
  expect((await updated).spec.resources.memoryBytes).toBe(400 * mebibyte);
});

test("the room of an update that failed is free again, and the container gets its old limits", async () => {
  const { manager, engine, events, reconciler, containers, done } = reconciled();
  containers.set("c1", containerFor(running));
  const update = engine.update;
  engine.update = async (container, limits) => {
    await update(container, limits);
    throw new SandboxdError("ENGINE_UNAVAILABLE", "the answer was lost");
  };
  await expect(
    manager.update({ id: "one", resources: { memoryBytes: 400 * mebibyte }, actor: caller }),
  ).rejects.toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
  engine.update = update;
  await reconciler.idle();
  expect(done).toEqual(["update c1", "update c1"]);
  expect(containers.get("c1")).toEqual(containerFor(running));
  expect(await events()).toEqual(["SANDBOX_CREATED"]);
});

test("an update that waits for its turn does not meet a later sandbox of its id", async () => {
  const { manager, engine, repository } = reconciled();
  const removing = gate();
  const inspect = engine.inspect;
  engine.inspect = async (id) => {
    await removing.pass();
    return inspect(id);
  };
  const deleted = manager.delete("one", { actor: caller });
  await removing.reached;
  const updated = manager.update({ id: "one", resources: { pids: 99 }, actor: caller });
  repository.subscribe((id) => {
    if (repository.get(id) === undefined) repository.insert(recordOf({ instance: "another" }));
  });
  removing.open();
  await expect(updated).rejects.toMatchObject({ reason: "SANDBOX_NOT_FOUND" });
  await deleted;
});

test("a renewal that max_lifetime bounds does not warn again of that end", async () => {
  const bounded = { ...spec, lifetime: { ...spec.lifetime, maxLifetimeMs: 60_000, ttlMs: 60_000 } };
  const end = nowMs + 60_000;
  const { manager } = reconciled([
    recordOf({ spec: bounded, acceptedAtMs: nowMs, expiresAtMs: end + 1, warnedOfMs: end }),
  ]);
  const renewed = await manager.renew("one", { actor: caller, generation: 1, ttlMs: 3_600_000 });
  expect(renewed).toMatchObject({ warnedOfMs: end, generation: 2 });
});

test("what held no capacity takes none while it is deleted", () => {
  const deleting = {
    state: "DELETING",
    wanted: "DELETED",
    reason: "REQUESTED",
    message: "",
    actor: caller,
  } as const;
  expect(holdsCapacity(moved(running, deleting))).toBe(true);
  for (const state of ["STOPPED", "FAILED"] as const) {
    expect(holdsCapacity(moved(recordOf({ state, wanted: "STOPPED" }), deleting))).toBe(false);
  }
});

test("a start that waits for a stop is refused if the lease ended meanwhile", async () => {
  const lifetime = { ...spec.lifetime, onExpiry: "STOP" } as const;
  const leased = recordOf({ spec: { ...spec, lifetime }, expiresAtMs: nowMs + 1_000 });
  const { manager, engine, repository, time, containers } = reconciled([leased]);
  containers.set("c1", containerFor(leased));
  const stopping = gate();
  const stop = engine.stop;
  engine.stop = async (id) => {
    await stopping.pass();
    await stop(id);
  };
  const stopped = manager.stop("one", { actor: caller });
  await stopping.reached;
  const started = manager.start("one", { actor: caller });
  time.nowMs = nowMs + 1_000;
  stopping.open();
  await expect(started).rejects.toMatchObject({ reason: "INVALID_STATE" });
  await stopped;
  expect(repository.get("one")?.state).not.toBe("RUNNING");
});
