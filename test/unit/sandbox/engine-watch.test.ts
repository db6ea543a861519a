import { describe, expect, onTestFinished, test, vi } from "vitest";
import type {
  Container,
  EngineDescription,
  EngineEvent,
  EventOptions,
  Runtime,
} from "../../../src/engine/runtime.ts";
import { SandboxdError } from "../../../src/errors.ts";
import { createLog } from "../../../src/observe/log.ts";
import type { EngineHealth } from "../../../src/sandbox/engine-health.ts";
import { createEngineWatch } from "../../../src/sandbox/engine-watch.ts";
import { createLabelCodec } from "../../../src/sandbox/labels.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { bootId, containerOf, recordOf, temporaryStore } from "./fixture.ts";

const labels = createLabelCodec("host-one", Buffer.alloc(32, 7));
const labelled = (id = "one", instance = "instance-one") => labels.encode(recordOf({ id, instance }));

const goodEngine: EngineDescription = {
  version: "20.10.24",
  apiVersion: "1.41",
  cgroupVersion: 1,
  cgroupDriver: "cgroupfs",
  storageDriver: "overlay2",
  runtimes: ["runc"],
  dataRoot: "/var/lib/docker",
};

const nowMs = 1_700_000_000_000;

interface Engine {
  describe: () => Promise<EngineDescription>;
  containers: readonly Container[];
  inspecting: () => Promise<void>;
  removing: () => Promise<void>;
  /** What is told on a connection; it then stays silent. */
  events: (options: EventOptions) => AsyncIterable<EngineEvent>;
}

/** A watch over an engine that has these containers. The engine is the only thing that is not real. */
function watched(change: Partial<Engine> = {}, orphanGraceMs = 0) {
  const engine: Engine = {
    describe: async () => goodEngine,
    containers: [],
    inspecting: async () => undefined,
    removing: async () => undefined,
    events: async function* () {},
    ...change,
  };
  const store = temporaryStore();
  const repository = createRepository(store);
  const kicked: string[] = [];
  const lookedAt = new Set<string>();
  const removed: string[] = [];
  const health: EngineHealth[] = [];
  const adopted: string[] = [];
  const tenants: { readonly name: string; readonly uid: number }[] = [];
  const heard: EngineEvent[] = [];
  const runtime = {
    describe: () => engine.describe(),
    ping: async () => void (await engine.describe()),
    list: async () => engine.containers,
    async inspect(id: string) {
      await engine.inspecting();
      return engine.containers.find((container) => container.id === id);
    },
    async remove(id: string) {
      removed.push(id);
      await engine.removing();
      return "gone";
    },
    async *events(_: string, options: EventOptions) {
      const { signal } = options;
      yield* engine.events(options);
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    },
  } as unknown as Runtime;
  const watch = createEngineWatch({
    runtime,
    repository,
    reconciler: {
      kick: (id) => void kicked.push(id),
      hasLookedAt: (id) => lookedAt.has(id),
      between: (_, job) => job(),
      noticed: (event) => void heard.push(event),
      idle: async () => undefined,
      close: () => undefined,
    },
    store,
    labels,
    clock: { nowMs: () => nowMs, wallMs: (ms) => ms },
    hostId: "host-one",
    bootId,
    relistPeriodMs: 20,
    orphanGraceMs,
    adopt: ({ id }) => void adopted.push(id),
    adoptTenant: (name, uid) => void tenants.push({ name, uid }),
    onHealth: (one) => health.push(one),
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(() => watch.close());
  return { watch, engine, store, repository, kicked, lookedAt, removed, adopted, tenants, heard, health };
}

describe("a container that the state doesn't know", () => {
  test("is taken up from its labels, with the limits that it has now, and its tenant's uid", async () => {
    const limits = { cpuMillis: 700, cpuWeight: 2, memoryBytes: 2 ** 27, pids: 99 };
    const { watch, repository, tenants, kicked } = watched({
      containers: [containerOf({ labels: labelled(), limits })],
    });
    await watch.start();
    expect(repository.get("one")).toMatchObject({
      instance: "instance-one",
      tenant: "acme",
      wanted: "RUNNING",
      state: "CREATING",
      transition: { reason: "ADOPTED" },
      spec: { resources: { cpuMillis: 700, memoryBytes: 2 ** 27, pids: 99 } },
      containerId: "c1",
    });
    expect(kicked).toContain("one");
    expect(tenants).toEqual([{ name: "acme", uid: 20_001 }]);
  });

  test("and that ended is not wanted to run", async () => {
    const { watch, repository } = watched({
      containers: [containerOf({ labels: labelled(), state: "exited" })],
    });
    await watch.start();
    expect(repository.get("one")?.wanted).toBe("STOPPED");
  });

  test("does not displace a sandbox of its id that was created meanwhile", async () => {
    const { watch, engine, repository } = watched({ containers: [containerOf({ labels: labelled() })] });
    engine.inspecting = async () => {
      engine.inspecting = async () => undefined;
      repository.insert(recordOf({ instance: "newer", state: "PENDING" }));
    };
    await watch.start();
    expect(repository.get("one")?.instance).toBe("newer");
  });

  test("and whose deletion was confirmed is removed, and not taken up", async () => {
    const { watch, store, repository, removed } = watched({
      containers: [containerOf({ labels: labelled() })],
    });
    store.transact((t) => t.removeSandbox("one", "instance-one"));
    await watch.start();
    expect(removed).toEqual(["c1"]);
    expect(repository.all()).toEqual([]);
  });

  test("with this host's label but not its signature is left alone", async () => {
    const forged = { ...labelled(), "sandboxd.mac": "0".repeat(64) };
    const { watch, repository, removed } = watched({ containers: [containerOf({ labels: forged })] });
    await watch.start();
    expect([repository.all(), removed]).toEqual([[], []]);
  });
});

test("a container of a deleted sandbox of the same id is removed, but only after the grace", async () => {
  const containers = [containerOf({ labels: labelled("one", "earlier") })];
  const patient = watched({ containers }, 3_600_000);
  const prompt = watched({ containers }, 50);
  for (const { store, repository, watch } of [patient, prompt]) {
    store.transact((t) => t.removeSandbox("one", "earlier"));
    repository.insert(recordOf());
    await watch.start();
  }
  expect(prompt.removed).toEqual([]);
  await vi.waitFor(() => expect(prompt.removed).toContain("c1"));
  expect(patient.removed).toEqual([]);
});

test.each(["ENGINE_FAILED", "ENGINE_TIMEOUT"] as const)(
  "a left-over container whose removal ends with %s is tried again, and closes nobody's host",
  async (reason) => {
    const containers = [
      containerOf({ labels: labelled("gone", "gone") }),
      containerOf({ id: "c2", labels: labelled() }),
    ];
    const { watch, store, repository, removed, adopted, health } = watched({
      containers,
      removing: async () => {
        throw new SandboxdError(reason, "could not kill it");
      },
    });
    store.transact((t) => t.removeSandbox("gone", "gone"));
    repository.insert(recordOf());
    await watch.start();
    await vi.waitFor(() => expect(removed.length).toBeGreaterThan(1));
    expect(adopted).toContain("one");
    expect(health.every(({ problem }) => problem === undefined)).toBe(true);
  },
);

test("a container of another sandbox of the same id, whose deletion is not known, is left alone", async () => {
  const { watch, repository, removed } = watched({
    containers: [containerOf({ labels: labelled("one", "other") })],
  });
  repository.insert(recordOf());
  await watch.start();
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(removed).toEqual([]);
  expect(repository.get("one")?.instance).toBe("instance-one");
});

test("only sandboxes of which the list shows something else, or that were not looked at yet, are", async () => {
  const names = ["same", "unseen", "gone", "paused", "stopped", "revived", "starting"];
  const { watch, engine, repository, kicked, lookedAt, adopted } = watched();
  for (const id of names) if (id !== "unseen") lookedAt.add(id);
  for (const id of names) repository.insert(recordOf({ id, instance: `instance-${id}` }));
  for (const id of ["stopped", "revived"]) {
    const rested = { wanted: "STOPPED", state: "STOPPED" } as const;
    repository.put(recordOf({ id, instance: `instance-${id}`, ...rested }), "SANDBOX_STATE_CHANGED");
  }
  repository.put(
    recordOf({ id: "starting", instance: "instance-starting", state: "CREATING" }),
    "SANDBOX_STATE_CHANGED",
  );
  const shown = (id: string, state: Container["state"]) =>
    containerOf({ id: `c-${id}`, labels: labelled(id, `instance-${id}`), state });
  engine.containers = [
    shown("same", "running"),
    shown("unseen", "running"),
    shown("paused", "paused"),
    shown("stopped", "exited"),
    shown("revived", "running"),
  ];
  await watch.start();
  expect([...new Set(kicked)].sort()).toEqual(["gone", "paused", "revived", "starting", "unseen"]);
  expect(new Set(adopted)).toEqual(new Set(["same", "unseen"]));
});

describe("the engine's health is told as", () => {
  const coded = (code: string) => Object.assign(new Error(code), { code });
  const unavailable = (code: string) => new SandboxdError("ENGINE_UNAVAILABLE", code, { cause: coded(code) });

  test.each<[string | undefined, Engine["describe"]]>([
    [undefined, async () => goodEngine],
    [undefined, async () => ({ ...goodEngine, apiVersion: "2.0", cgroupDriver: "systemd" })],
    ["ENGINE_TOO_OLD", async () => ({ ...goodEngine, apiVersion: "1.40" })],
    ["ENGINE_TOO_OLD", () => Promise.reject(new Error("client version 1.41 is too new"))],
    ["CGROUP_UNSUPPORTED", async () => ({ ...goodEngine, cgroupDriver: "none" })],
    ["ENGINE_ACCESS_DENIED", () => Promise.reject(unavailable("EACCES"))],
    ["ENGINE_ABSENT", () => Promise.reject(unavailable("ENOENT"))],
    ["ENGINE_UNRESPONSIVE", () => Promise.reject(new SandboxdError("ENGINE_TIMEOUT", "slow"))],
  ])("%s", async (problem, describeEngine) => {
    const { watch, health } = watched({ describe: describeEngine });
    await watch.start();
    expect(health[0]?.problem).toBe(problem);
    expect(health[0]?.hint === "").toBe(problem === undefined);
  });

  test("absent for want of file descriptors, with what to do about that", async () => {
    const { watch, health } = watched({ describe: () => Promise.reject(unavailable("EMFILE")) });
    await watch.start();
    expect(health[0]).toMatchObject({
      problem: "ENGINE_ABSENT",
      hint: expect.stringContaining("LimitNOFILE"),
    });
  });

  test("what is known of the engine while it cannot be reached, and well again once it can", async () => {
    const { watch, engine, health } = watched();
    await watch.start();
    engine.describe = () => Promise.reject(unavailable("ECONNREFUSED"));
    await vi.waitFor(() =>
      expect(health.at(-1)).toMatchObject({ problem: "ENGINE_ABSENT", engine: goodEngine }),
    );
    engine.describe = async () => goodEngine;
    await vi.waitFor(() => expect(health.at(-1)?.problem).toBeUndefined(), { timeout: 3_000 });
  });
});

test("a broken event stream is opened anew, from the last event on", async () => {
  const asked: (bigint | undefined)[] = [];
  const { watch, heard } = watched({
    async *events({ onOpen, sinceNanos }) {
      onOpen();
      asked.push(sinceNanos);
      yield { containerId: "c1", action: "kill", labels: {}, timeNanos: BigInt(asked.length) * 10n };
      if (asked.length === 1) throw new Error("the connection broke");
    },
  });
  await watch.start();
  await vi.waitFor(() => expect(asked).toEqual([undefined, 11n]), { timeout: 3_000 });
  await vi.waitFor(() => expect(heard.map(({ timeNanos }) => timeNanos)).toEqual([10n, 20n]));
});

test("its progress is seen while it looks, whatever comes of it, and not while it is stuck", async () => {
  const { watch, engine } = watched();
  await watch.start();
  const advance = async () => {
    const seen = watch.lastProgress();
    await vi.waitFor(() => expect(watch.lastProgress()).toBeGreaterThan(seen), { timeout: 3_000 });
  };
  await advance();
  engine.describe = () => Promise.reject(new Error("no engine"));
  await advance();
  const hanging = Promise.withResolvers<EngineDescription>();
  engine.describe = () => hanging.promise;
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  const stuck = watch.lastProgress();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(watch.lastProgress()).toBe(stuck);
  hanging.resolve(goodEngine);
  await vi.waitFor(() => expect(watch.lastProgress()).toBeGreaterThan(stuck));
});

test("containers of an engine that cannot be used are not touched", async () => {
  const { watch, repository, removed } = watched({
    describe: async () => ({ ...goodEngine, apiVersion: "1.40" }),
    containers: [containerOf({ labels: labelled() })],
  });
  await watch.start();
  expect([repository.all(), removed]).toEqual([[], []]);
});

test("after closing, the engine is asked no more", async () => {
  const { watch, engine } = watched();
  await watch.start();
  await watch.close();
  const asked = vi.fn(async () => goodEngine);
  engine.describe = asked;
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(asked).not.toHaveBeenCalled();
});
