// Streams of changes: what they begin with, that a reader who comes back misses nothing, and what they refuse.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import type { WatchHostResponse } from "../../gen/sandboxd/v1/host_service_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { WatchSandboxesResponse } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { present, refusalOf, sleeping, specOf, startHost, type TestHost } from "../harness/sandboxes.ts";

/** Reads until `isEnough` of what was read, then hangs up. */
async function readUntil<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  isEnough: (read: readonly T[]) => boolean,
  timeoutMs = 20_000,
): Promise<readonly T[]> {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(new Error("not enough was told in time")), timeoutMs);
  const read: T[] = [];
  try {
    for await (const message of open(ending.signal)) {
      read.push(message);
      if (isEnough(read)) return read;
    }
    throw new Error("the stream ended by itself");
  } finally {
    clearTimeout(timer);
    ending.abort();
  }
}

const isDeleted = ({ update }: WatchSandboxesResponse) =>
  update.case === "changed" && update.value.status?.state === SandboxState.DELETED;

const told = ({ update }: WatchSandboxesResponse): string => {
  if (update.case === "bookmark") return "bookmark";
  const sandbox = present(update.case === undefined ? undefined : update.value);
  return `${update.case} ${sandbox.sandboxId} ${SandboxState[sandbox.status?.state ?? 0]}`;
};

describe.skipIf(engineObstacle !== undefined)(`watches (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost();
  });
  afterAll(() => host?.daemon.cleanup());

  const run = (sandboxId: string, tenant: string) =>
    host.sandboxes.createSandbox({ sandboxId, tenant, spec: specOf(sleeping) });
  const stop = (sandboxId: string) => host.sandboxes.stopSandbox({ sandboxId });
  const remove = (sandboxId: string) => host.sandboxes.deleteSandbox({ sandboxId });
  const watch = (filter: object, afterSequence?: bigint) => (signal: AbortSignal) =>
    host.sandboxes.watchSandboxes(
      { filter, ...(afterSequence === undefined ? {} : { afterSequence }) },
      { signal },
    );

  test("a watch of sandboxes tells what is, then a bookmark, then every change in order", async () => {
    await run("first", "watched");
    await run("elsewhere", "other");
    let acted = false;
    const read = await readUntil(watch({ tenant: "watched" }), (so) => {
      if (!acted && so.at(-1)?.update.case === "bookmark") {
        acted = true;
        void run("second", "watched")
          .then(() => stop("elsewhere"))
          .then(() => stop("first"))
          .then(() => remove("second"));
      }
      return so.some(isDeleted);
    });
    expect(read.map(told)).toEqual([
      "existing first RUNNING",
      "bookmark",
      "changed second PENDING",
      "changed second CREATING",
      "changed second RUNNING",
      "changed first STOPPING",
      "changed first STOPPED",
      "changed second DELETING",
      "changed second DELETED",
    ]);
    const numbers = read.slice(1).map(({ sequence }) => sequence);
    expect(numbers).toEqual([...numbers].sort((a, b) => Number(a - b)));
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  test("a watch that resumes from any number it saw is told the rest, nothing twice", async () => {
    const { lastSequence } = await host.events.listEvents({ pageSize: 1000 });
    await run("resumed", "resumer");
    await stop("resumed");
    await remove("resumed");
    const changes = (from: bigint) =>
      readUntil(watch({ tenant: "resumer" }, from), (so) => so.some(isDeleted)).then((read) =>
        read.filter(({ update }) => update.case === "changed"),
      );
    const all = await changes(lastSequence);
    expect(all.length).toBeGreaterThanOrEqual(7);
    for (const [index, { sequence }] of all.slice(0, -1).entries()) {
      expect(await changes(sequence), `after ${sequence}`).toEqual(all.slice(index + 1));
    }
  });

  test("a sandbox that no longer matches the filter is told once more", async () => {
    await run("leaver", "leaving");
    let acted = false;
    const filter = { tenant: "leaving", states: [SandboxState.RUNNING] };
    const read = await readUntil(watch(filter), (so) => {
      if (!acted && so.at(-1)?.update.case === "bookmark") {
        acted = true;
        void stop("leaver");
      }
      return so.length === 3;
    });
    expect(read.map(told)).toEqual(["existing leaver RUNNING", "bookmark", "changed leaver STOPPING"]);
  });

  test("a restart of the daemon loses no change to a watcher that resumes", async () => {
    const [bookmark] = await readUntil(watch({ tenant: "survivor" }), (so) => so.length > 0);
    await run("survivor", "survivor");
    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    await remove("survivor");
    const read = await readUntil(watch({ tenant: "survivor" }, present(bookmark).sequence), (so) =>
      so.some(isDeleted),
    );
    expect(read.filter(({ update }) => update.case === "changed").map(told)).toEqual([
      "changed survivor PENDING",
      "changed survivor CREATING",
      "changed survivor RUNNING",
      "changed survivor DELETING",
      "changed survivor DELETED",
    ]);
  });

  test("a number from the future is out of range, to watches and lists", async () => {
    const { lastSequence } = await host.events.listEvents({ pageSize: 1000 });
    const afterSequence = lastSequence + 1_000n;
    const calls = [
      readUntil(watch({}, afterSequence), () => true),
      readUntil(
        (signal) => host.events.watchEvents({ afterSequence }, { signal }),
        () => true,
      ),
      host.events.listEvents({ afterSequence }),
    ];
    for (const call of calls) {
      expect(await refusalOf(call)).toMatchObject({ code: "OutOfRange", reason: "SEQUENCE_TRUNCATED" });
    }
  });

  test("a watch of events resumes after the number it is given, by filter", async () => {
    const { lastSequence } = await host.events.listEvents({ pageSize: 1000 });
    await run("eventful", "eventer");
    await host.sandboxes.updateSandbox({ sandboxId: "eventful", labels: { a: "b" } });
    await remove("eventful");
    const types = [
      EventType.TENANT_CHANGED,
      EventType.SANDBOX_CREATED,
      EventType.SANDBOX_STATE_CHANGED,
      EventType.SANDBOX_UPDATED,
      EventType.SANDBOX_DELETED,
    ];
    const events = async (from: bigint, filter = { tenant: "eventer" }) => {
      const open = (signal: AbortSignal) =>
        host.events.watchEvents({ filter, afterSequence: from }, { signal });
      const read = await readUntil(open, (so) =>
        so.some(({ update }) => update.case === "event" && update.value.type === EventType.SANDBOX_DELETED),
      );
      return read.flatMap(({ update }) => (update.case === "event" ? [update.value] : []));
    };
    const all = await events(lastSequence);
    expect(new Set(all.map(({ type }) => type))).toEqual(new Set(types));
    expect(all[0]).toMatchObject({ type: EventType.TENANT_CHANGED, tenant: "eventer", sandboxId: "" });
    expect(all[1]).toMatchObject({ type: EventType.SANDBOX_CREATED, sandboxId: "eventful" });
    const middle = present(all[2]);
    expect(await events(middle.sequence)).toEqual(all.slice(3));
    const { events: listed } = await host.events.listEvents({
      afterSequence: lastSequence,
      filter: { tenant: "eventer" },
    });
    expect(listed).toEqual(all);
  });

  test("events number every fact of the host without gap, page by page", async () => {
    const sequences: bigint[] = [];
    let afterSequence: bigint | undefined;
    for (let more = true; more; ) {
      const page = await host.events.listEvents({
        pageSize: 7,
        ...(afterSequence === undefined ? {} : { afterSequence }),
      });
      sequences.push(...page.events.map(({ sequence }) => sequence));
      ({ more } = page);
      afterSequence = page.lastSequence;
    }
    expect(sequences).toEqual(sequences.map((_, index) => BigInt(index + 1)));
    expect(sequences.length).toBeGreaterThan(20);
  });

  test("a watch of the host tells it at once, again when more is promised, and stats at the period", async () => {
    let acted = false;
    const isHost = ({ update }: WatchHostResponse) => update.case === "host";
    const read = await readUntil(
      (signal) => host.host.watchHost({ statsPeriod: { seconds: 1n }, sandboxStats: true }, { signal }),
      (so) => {
        if (!acted) {
          acted = true;
          void run("counted", "counter");
        }
        const batches = so.flatMap(({ update }) => (update.case === "stats" ? [update.value] : []));
        const isMeasured = batches.some(({ sandboxes }) =>
          sandboxes.some(({ sandboxId }) => sandboxId === "counted"),
        );
        return so.filter(isHost).length > 1 && batches.length > 1 && isMeasured;
      },
    );
    expect(read[0]?.update.case).toBe("host");
    const hosts = read.flatMap(({ update }) => (update.case === "host" ? [update.value] : []));
    expect(hosts[0]).toMatchObject({ hostId: host.daemon.hostId, accepting: true });
    const promised = hosts.map(({ allocated }) => present(allocated).sandboxes);
    expect(present(promised.at(-1))).toBe(present(promised[0]) + 1n);
    const stats = read.flatMap(({ update }) => (update.case === "stats" ? [update.value] : [])).at(-1);
    expect(stats?.host?.memoryTotalBytes).toBeGreaterThan(0n);
    expect(stats?.sandboxes.find(({ sandboxId }) => sandboxId === "counted")?.memoryLimitBytes).toBe(
      33_554_432n,
    );
  });
});
