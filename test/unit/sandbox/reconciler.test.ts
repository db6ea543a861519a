import { describe, expect, onTestFinished, test, vi } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { actors, type SandboxRecord } from "../../../src/sandbox/record.ts";
import { recordOf } from "./fixture.ts";
import { containerFor, gate, labels, reconciled } from "./reconciled.ts";

const caller = { kind: "CALLER", identity: "somebody" } as const;
const pending = recordOf({ state: "PENDING", containerId: "", imageId: "", bootId: "" });
const running = recordOf();
const { spec } = running;
const restart = { ...spec.restart, mode: "ON_FAILURE", delayMs: 60_000, maxDelayMs: 60_000 } as const;

const unavailable = new SandboxdError("ENGINE_UNAVAILABLE", "nobody answers");

describe("a tenant that the kernel does not hold", () => {
  test("starts nothing: the sandbox has failed, and the engine was asked for nothing", async () => {
    const { kernel, repository, reconciler, done } = reconciled([pending]);
    kernel.holdTenant = async () => {
      throw new SandboxdError("LIMIT_UNENFORCEABLE", "cgroup /p/20001 cannot have pids 9");
    };
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({
      state: "FAILED",
      transition: { reason: "LIMIT_UNENFORCED", message: "cgroup /p/20001 cannot have pids 9" },
    });
    expect(done).toEqual([]);
  });

  test("for want of a descriptor is asked for again", async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const { kernel, repository, reconciler } = reconciled([pending]);
    let asked = 0;
    kernel.holdTenant = async () => {
      asked += 1;
      if (asked === 1) throw Object.assign(new Error("too many open files"), { code: "EMFILE" });
    };
    reconciler.kick("one");
    await vi.advanceTimersByTimeAsync(500);
    expect(repository.get("one")?.state).toBe("PENDING");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(repository.get("one")?.state).toBe("RUNNING");
  });
});

describe("the rules of a sandbox's network", () => {
  const place = {
    network: "n",
    bridge: "b",
    subnet: "10.0.0.0/25",
    gateway: "10.0.0.1",
    address: "10.0.0.2",
    mac: "02:00:0a:00:00:02",
  };

  test("are made while its container is created, and are there before it starts", async () => {
    const { networks, repository, reconciler, done } = reconciled([pending]);
    const ruling = gate();
    networks.prepare = async () => ({ place, held: ruling.pass() });
    reconciler.kick("one");
    await vi.waitFor(() => expect(done).toEqual(["create"]));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(done).toEqual(["create"]);
    ruling.open();
    await reconciler.idle();
    expect(done).toEqual(["create", "start c1"]);
    expect(repository.get("one")).toMatchObject({ state: "RUNNING", place });
  });

  test("that the kernel does not take leave no container", async () => {
    const { networks, repository, reconciler, done } = reconciled([pending]);
    networks.prepare = async () => ({
      place,
      held: Promise.reject(new SandboxdError("NETWORK_UNAVAILABLE", "nft said no")),
    });
    reconciler.kick("one");
    await reconciler.idle();
    expect(done).toEqual(["create", "remove c1"]);
    expect(repository.get("one")).toMatchObject({
      state: "FAILED",
      transition: { message: "nft said no" },
    });
  });
});

describe("what a caller changes while the engine is asked is not overwritten:", () => {
  test("a stop while limits are read back", async () => {
    const { manager, engine, repository, reconciler } = reconciled([pending]);
    const verifying = gate();
    engine.verify = async () => {
      await verifying.pass();
      return { version: 2, memory: "", cpu: "", cpuacct: "", pids: "", blkio: "", freezer: "" };
    };
    reconciler.kick("one");
    await verifying.reached;
    const stopped = manager.stop("one", { actor: caller });
    verifying.open();
    expect(await stopped).toMatchObject({ state: "STOPPED", wanted: "STOPPED", generation: 2 });
    expect(repository.get("one")?.state).toBe("STOPPED");
  });

  test("a renewal while the container is looked at", async () => {
    const { manager, engine, repository, reconciler, containers } = reconciled([
      recordOf({ state: "STOPPED", wanted: "STOPPED" }),
    ]);
    containers.set("c1", containerFor(running));
    const inspect = engine.inspect;
    const looking = gate();
    engine.inspect = async (id) => {
      await looking.pass();
      return inspect(id);
    };
    reconciler.kick("one");
    await looking.reached;
    const { expiresAtMs } = await manager.renew("one", { actor: caller, generation: 1, ttlMs: 60_000 });
    looking.open();
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({ expiresAtMs, generation: 2, state: "STOPPED" });
  });

  test("a delete while the report of an end is put together", async () => {
    const { manager, engine, repository, reconciler, containers, events } = reconciled();
    containers.set("c1", containerFor(running, { state: "exited", exitCode: 1 }));
    const reading = gate();
    engine.logs = async function* () {
      await reading.pass();
      yield* [];
    };
    reconciler.kick("one");
    await reading.reached;
    const deleted = manager.delete("one", { actor: caller });
    reading.open();
    await deleted;
    expect(repository.get("one")).toBeUndefined();
    expect(await events()).toEqual(["SANDBOX_CREATED", "DELETING", "SANDBOX_DELETED"]);
  });
});

describe("a step that is tried again", () => {
  test("tells the same state once", async () => {
    const { engine, repository, reconciler, events } = reconciled([pending]);
    const create = engine.create;
    engine.create = async () => {
      throw unavailable;
    };
    reconciler.kick("one");
    await reconciler.idle();
    engine.create = create;
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")?.state).toBe("RUNNING");
    expect(await events()).toEqual(["SANDBOX_CREATED", "CREATING", "RUNNING"]);
  });

  test("leaves no timer behind a closed reconciler, however often it failed", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const { engine, reconciler } = reconciled();
    engine.inspect = async () => {
      throw unavailable;
    };
    reconciler.kick("one", { fresh: false });
    reconciler.kick("one", { fresh: true });
    reconciler.kick("one", { fresh: true });
    await reconciler.idle();
    reconciler.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("an end that the kernel does not carry out", () => {
  const failed = new SandboxdError("ENGINE_FAILED", "could not kill it");
  const refuse = async () => {
    throw failed;
  };

  test("is told once, also over a deletion after the stop", async () => {
    const { engine, manager, reconciler, repository, containers, events } = reconciled();
    containers.set("c1", containerFor(running));
    engine.stop = refuse;
    engine.remove = refuse;
    const stop = manager.stop("one", { actor: caller }).catch(() => undefined);
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({
      state: "STOPPING",
      stuck: { evidence: "could not kill it" },
    });
    const deleted = manager.delete("one", { actor: caller });
    await reconciler.idle();
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({ state: "DELETING", stuck: {} });
    containers.clear();
    reconciler.kick("one");
    await Promise.all([stop, deleted]);
    const told = ["SANDBOX_CREATED", "STOPPING", "SANDBOX_STUCK", "DELETING", "SANDBOX_DELETED"];
    expect(await events()).toEqual(told);
  });

  test("is told of a deletion if it ran, and not if only its container stays", async () => {
    const two = recordOf({ id: "two", instance: "instance-two", state: "STOPPED", wanted: "STOPPED" });
    const { engine, manager, reconciler, repository, containers } = reconciled([running, two]);
    containers.set("c1", containerFor(running));
    containers.set("c2", containerFor(two, { id: "c2", state: "exited", pid: 0 }));
    engine.remove = refuse;
    for (const id of ["one", "two"]) {
      const signal = AbortSignal.timeout(0);
      await expect(manager.delete(id, { actor: caller, signal })).rejects.toThrow();
    }
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({ state: "DELETING", stuck: {} });
    expect(repository.get("two")?.state).toBe("DELETING");
    expect(repository.get("two")?.stuck).toBeUndefined();
  });
});

describe("a container", () => {
  test("that is being removed already is waited for", async () => {
    const { engine, manager, reconciler, containers, done } = reconciled();
    containers.set("c1", containerFor(running));
    engine.remove = async () => "going";
    const deleted = manager.delete("one", { actor: caller });
    await reconciler.idle();
    expect(done).toEqual(["remove c1"]);
    containers.clear();
    reconciler.kick("one");
    await deleted;
  });

  test("that somebody renamed stays its sandbox's", async () => {
    const { manager, containers, done } = reconciled();
    containers.set("c1", containerFor(running, { name: "mine" }));
    expect(await manager.stop("one", { actor: caller })).toMatchObject({ state: "STOPPED" });
    expect(done).toEqual(["stop c1"]);
  });

  test("whose create got lost is found by its name, and tells what image it is of", async () => {
    const { reconciler, repository, containers, done } = reconciled([pending]);
    const bound = { ...pending, imageId: "sha256:1" };
    containers.set("c9", containerFor(bound, { id: "c9", state: "created", startedAt: "" }));
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({
      state: "RUNNING",
      containerId: "c9",
      imageId: "sha256:1",
    });
    expect(done).toEqual(["start c9"]);
  });

  test("that an update left with other limits gets those that are recorded", async () => {
    const { reconciler, containers, done } = reconciled();
    const limits = { ...containerFor(running).limits, memoryBytes: 2 ** 30 };
    containers.set("c1", containerFor(running, { limits }));
    reconciler.kick("one");
    await reconciler.idle();
    expect(done).toEqual(["update c1"]);
    expect(containers.get("c1")).toEqual(containerFor(running));
  });

  test("that is let go on is not removed because the engine could not say how it is", async () => {
    const { reconciler, repository, engine, containers, done } = reconciled([
      recordOf({ state: "RESUMING" }),
    ]);
    containers.set("c1", containerFor(running));
    engine.verify = async () => {
      throw new SandboxdError("ENGINE_FAILED", "engine inspect: (HTTP code 500)");
    };
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")?.state).toBe("RESUMING");
    expect(done).toEqual([]);
  });

  test("that is let go on without its limits is removed", async () => {
    const { reconciler, repository, engine, containers, done } = reconciled([
      recordOf({ state: "RESUMING" }),
    ]);
    containers.set("c1", containerFor(running));
    engine.verify = async () => {
      throw new SandboxdError("LIMIT_UNENFORCEABLE", "memory_bytes");
    };
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({
      state: "FAILED",
      transition: { reason: "LIMIT_UNENFORCED" },
    });
    expect(done).toEqual(["remove c1"]);
  });
});

describe("a signal by somebody on the host", () => {
  const exited = containerFor(running, { state: "exited", exitCode: 137, startedAt: "run of c1" });
  const killed = { containerId: "c1", action: "kill", labels: labels.encode(running), timeNanos: 1n };

  test("that meets a start is not taken for the daemon's own", async () => {
    const record = recordOf({ ...pending, imageId: "sha256:1", spec: { ...spec, restart } });
    const { reconciler, repository, engine, containers } = reconciled([record]);
    engine.start = async (id) => {
      reconciler.noticed(killed);
      containers.set(id, { ...exited, labels: labels.encode(record) });
    };
    engine.verify = async () => undefined;
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")?.transition.reason).toBe("EXTERNAL");
  });

  test("that was told before a start says nothing of the run that began with it", async () => {
    const record = recordOf({ spec: { ...spec, restart } });
    const { reconciler, repository, containers } = reconciled([record]);
    reconciler.noticed(killed);
    reconciler.noticed({ ...killed, action: "start" });
    containers.set("c1", { ...exited, labels: labels.encode(record) });
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")?.transition.reason).toBe("SIGNALED");
  });

  test("is heard of before the end is looked at, also where the word of our own start comes late", async () => {
    const record = recordOf({ ...pending, imageId: "sha256:1", spec: { ...spec, restart } });
    const { reconciler, repository, containers } = reconciled([record]);
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")?.state).toBe("RUNNING");
    containers.set("c1", { ...exited, labels: labels.encode(record) });
    for (const action of ["start", "kill", "die"]) {
      reconciler.noticed({ ...killed, action });
      await reconciler.idle();
    }
    expect(repository.get("one")?.transition.reason).toBe("EXTERNAL");
  });

  test("is remembered until the end was written", async () => {
    const record = recordOf({ spec: { ...spec, restart } });
    const { reconciler, repository, store, containers } = reconciled([record]);
    containers.set("c1", { ...exited, labels: labels.encode(record) });
    reconciler.noticed(killed);
    const full = vi.spyOn(store, "transact").mockImplementation(() => {
      throw new SandboxdError("STATE_DISK_FULL", "full");
    });
    reconciler.kick("one");
    await reconciler.idle();
    full.mockRestore();
    reconciler.kick("one");
    await reconciler.idle();
    expect(repository.get("one")).toMatchObject({
      state: "FAILED",
      transition: { reason: "EXTERNAL", actor: actors.external },
    });
  });
});

describe("the last output of a run that ended", () => {
  const died = { containerId: "c1", action: "die", labels: labels.encode(running), timeNanos: 1n };
  const exited = containerFor(running, { state: "exited", exitCode: 1 });
  const lineOf = (text: string) => ({
    timeNanoseconds: 1n,
    stream: "stdout" as const,
    data: Buffer.from(`${text}\n`),
  });
  /** Has each answer say which one it is. Returns how many there were. */
  function countLogs(engine: ReturnType<typeof reconciled>["engine"]): () => number {
    let asked = 0;
    engine.logs = async function* () {
      asked += 1;
      yield lineOf(`asked ${asked}`);
    };
    return () => asked;
  }
  const tailOf = ({ exit }: SandboxRecord | undefined = running) => exit?.report?.logTail;

  test("is asked for at the engine's word, beside the only look, and once", async () => {
    const { reconciler, repository, engine, containers } = reconciled();
    containers.set("c1", exited);
    const inspect = engine.inspect;
    const looking = gate();
    let looks = 0;
    engine.inspect = async (id) => {
      looks += 1;
      await looking.pass();
      return inspect(id);
    };
    const asked = countLogs(engine);
    reconciler.noticed(died);
    await looking.reached;
    expect(asked()).toBe(1);
    looking.open();
    await reconciler.idle();
    expect(tailOf(repository.get("one"))).toEqual(["asked 1"]);
    expect({ asked: asked(), looks }).toEqual({ asked: 1, looks: 1 });
  });

  test("is asked for again if it could not be had then", async () => {
    const { reconciler, repository, engine, containers } = reconciled();
    containers.set("c1", exited);
    let asked = 0;
    engine.logs = async function* () {
      asked += 1;
      if (asked === 1) throw unavailable;
      yield lineOf(`asked ${asked}`);
    };
    reconciler.noticed(died);
    await reconciler.idle();
    expect(tailOf(repository.get("one"))).toEqual(["asked 2"]);
  });

  test("is what could be had, if it broke off each time", async () => {
    const { reconciler, repository, engine, containers } = reconciled();
    containers.set("c1", exited);
    engine.logs = async function* () {
      yield lineOf("the first line");
      throw unavailable;
    };
    reconciler.noticed(died);
    await reconciler.idle();
    expect(tailOf(repository.get("one"))).toEqual(["the first line"]);
  });

  test("is not that of a look before", async () => {
    const { reconciler, repository, engine, containers } = reconciled();
    containers.set("c1", containerFor(running));
    countLogs(engine);
    reconciler.noticed(died);
    await reconciler.idle();
    containers.set("c1", exited);
    reconciler.kick("one");
    await reconciler.idle();
    expect(tailOf(repository.get("one"))).toEqual(["asked 2"]);
  });

  test("is not asked for if the sandbox goes as well", async () => {
    const { manager, reconciler, engine, containers } = reconciled();
    containers.set("c1", containerFor(running));
    const asked = countLogs(engine);
    const removing = gate();
    engine.remove = async (id) => {
      await removing.pass();
      containers.delete(id);
      return "gone";
    };
    const deleted = manager.delete("one", { actor: caller });
    await removing.reached;
    reconciler.noticed(died);
    removing.open();
    await deleted;
    expect(asked()).toBe(0);
  });
});

test("what was pulled is found, also while others look for the same image", async () => {
  const two = recordOf({ ...pending, id: "two", instance: "instance-two" });
  const { reconciler, repository, engine } = reconciled([pending, two]);
  let isThere = false;
  const found = { id: "sha256:1", digests: [], tags: [], labels: {}, volumes: [] };
  const pulling = gate();
  engine.pull = async () => {
    await pulling.pass();
    isThere = true;
  };
  engine.image = async () => {
    const answer = isThere ? found : undefined;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return answer;
  };
  reconciler.kick("one");
  await pulling.reached;
  // the second asks before the image is there, and hears the answer after
  reconciler.kick("two");
  await new Promise((resolve) => setTimeout(resolve, 5));
  pulling.open();
  await reconciler.idle();
  expect(repository.get("one")?.state).toBe("RUNNING");
  expect(repository.get("two")?.state).toBe("RUNNING");
});

describe("a start", () => {
  test("compares with the plan that the container was made from, or with that of what was changed meanwhile", async () => {
    const { engine, repository, reconciler } = reconciled([pending, recordOf({ ...pending, id: "two" })]);
    const made: unknown[] = [];
    const compared: unknown[] = [];
    const { create } = engine;
    engine.create = async (plan) => {
      made.push(plan);
      const two = repository.get("two");
      if (made.length === 2 && two !== undefined)
        repository.put({ ...two, toolbox: undefined, tenant: "another" } as typeof two, "SANDBOX_UPDATED");
      return create(plan);
    };
    engine.compare = async (...[, plan]: readonly unknown[]) => void compared.push(plan);
    for (const id of ["one", "two"]) {
      reconciler.kick(id);
      await reconciler.idle();
    }
    expect(compared[0]).toBe(made[0]);
    expect(compared[1]).toMatchObject({
      labels: { "sandboxd.record": expect.stringContaining('"another"') },
    });
  });
});
