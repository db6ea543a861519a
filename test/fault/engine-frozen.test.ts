// An engine that is frozen for half a minute under forty sandboxes, while callers go on and try again at each deadline: reads
// are answered, calls end, nothing piles up, and all that was asked for comes about once it is thawed.
// SANDBOXD_TEST_FROZEN_SECONDS=<number> and SANDBOXD_TEST_FROZEN_SANDBOXES=<number> make it more of either.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const { SANDBOXD_TEST_FROZEN_SECONDS: seconds = 20, SANDBOXD_TEST_FROZEN_SANDBOXES: sandboxCount = 40 } =
  process.env;
const frozenMs = Number(seconds) * 1_000;
/** What is stopped, deleted, paused or left alone during the freeze, of each; and as many are created. */
const ofEachKind = Math.floor(Number(sandboxCount) / 4);
const deadlineMs = 2_000;
/** A call is ended by the daemon or by its client; the machine may be busy with other things. */
const slackMs = 1_000;
const tiny = { cpuMillis: 20n, memoryBytes: BigInt(16 * mebibyte), pids: 8n };

let engine: PrivateEngine | undefined;
let host: TestHost | undefined;
let witness: EventWitness | undefined;
afterEach(async () => {
  engine?.thaw();
  // before their engine goes: what is paused does not end by a signal
  await host?.daemon.cleanup();
  await engine?.stop();
  await witness?.close();
});

test.skipIf(engineObstacle)(
  "an engine that hangs costs its callers their deadlines, and nothing else",
  async () => {
    engine = await ownEngine();
    witness = await witnessEvents();
    const at = await startHost({ engine: engine.socket, config: witness.config });
    host = at;
    const { sandboxes } = at;
    const create = (sandboxId: string) => ({ sandboxId, tenant, spec: specOf(sleeping, tiny) });
    const namesOf = (kind: string) => Array.from({ length: ofEachKind }, (_, index) => `${kind}-${index}`);
    const kinds = ["stop", "delete", "pause", "leave"];
    const createdFrom = performance.now();
    await Promise.all(kinds.flatMap(namesOf).map((id) => sandboxes.createSandbox(create(id))));
    const allCreatedMs = performance.now() - createdFrom;
    const left = await Promise.all(namesOf("leave").map(at.get));

    const before = usageOf(at);
    const frozenAt = performance.now();
    await engine.freeze();
    const thawAt = frozenAt + frozenMs;
    const reads = { slowestMs: 0, count: 0 };
    const reading = read(at, reads, () => performance.now() > thawAt);
    const conditions = async () =>
      present((await at.host.getHost({})).host)
        .conditions.filter(({ active }) => active)
        .map(({ type }) => HostConditionType[type]);
    const isToldFor = (found: readonly string[]) => found.includes("ENGINE_UNRESPONSIVE");
    const told = eventually("the condition", conditions, isToldFor).then(() => performance.now() - frozenAt);

    const verbs = {
      stop: (sandboxId: string) => sandboxes.stopSandbox({ sandboxId }, { timeoutMs: deadlineMs }),
      delete: (sandboxId: string) => sandboxes.deleteSandbox({ sandboxId }, { timeoutMs: deadlineMs }),
      pause: (sandboxId: string) => sandboxes.pauseSandbox({ sandboxId }, { timeoutMs: deadlineMs }),
      create: (sandboxId: string) => sandboxes.createSandbox(create(sandboxId), { timeoutMs: deadlineMs }),
    };
    const asked = Object.entries(verbs).flatMap(([kind, ask]) =>
      namesOf(kind).map(async (id, index) => {
        // over two thirds of the time: before the hanging is known, and after
        await sleep((index * frozenMs * 2) / 3 / ofEachKind);
        return insist(() => ask(id));
      }),
    );

    const peak = { descriptors: 0, residentBytes: 0 };
    while (performance.now() < thawAt) {
      const { descriptors, residentBytes } = usageOf(at);
      peak.descriptors = Math.max(peak.descriptors, descriptors);
      peak.residentBytes = Math.max(peak.residentBytes, residentBytes);
      await sleep(200);
    }
    const busyMs = usageOf(at).processorMs - before.processorMs;
    engine.thaw();
    const thawedAt = performance.now();
    const ended = eventually("its end", conditions, (found) => !isToldFor(found), 60_000).then(
      () => performance.now() - thawedAt,
    );
    const fresh = await insist(() => sandboxes.createSandbox(create("fresh"), { timeoutMs: deadlineMs }));
    const usableMs = performance.now() - thawedAt;
    const slowest = (await Promise.all(asked)).map(({ slowestMs }) => slowestMs);
    await reading;
    const slowestMs = Math.max(fresh.slowestMs, ...slowest);
    const grownBytes = peak.residentBytes - before.residentBytes;
    console.log(
      `${4 * ofEachKind} sandboxes, ${frozenMs / 1_000} s:`,
      `slowest of ${reads.count} reads ${rounded(reads.slowestMs)} ms, slowest verb ${rounded(slowestMs)} ms,`,
      `told after ${rounded(await told)} ms, its end after ${rounded(await ended)} ms, memory +${rounded(grownBytes / mebibyte)} MiB,`,
      `descriptors +${peak.descriptors - before.descriptors}, CPU ${busyMs} ms, a new create done ${rounded(usableMs)} ms after`,
    );

    expect(reads.count, "there were readers").toBeGreaterThan(200);
    expect(reads.slowestMs, "reads ask no engine").toBeLessThan(1_000);
    expect(await told).toBeLessThan(15_000);
    expect(await ended).toBeLessThan(5_000);
    expect(slowestMs).toBeLessThan(deadlineMs + slackMs);
    expect(peak.descriptors - before.descriptors, "connections").toBeLessThan(80);
    expect(grownBytes).toBeLessThan(20 * mebibyte);
    expect(busyMs, "processor time of that time").toBeLessThan(frozenMs / 2);
    // it waits for as many as these, which were asked for during the freeze
    expect(usableMs).toBeLessThan(allCreatedMs + slackMs);

    const stateOf = async (id: string) => whereIs(await at.get(id)).state;
    const statesOf = (kind: string) => Promise.all(namesOf(kind).map(stateOf));
    for (const [kind, state] of [
      ["stop", "STOPPED"],
      ["pause", "PAUSED"],
      ["create", "RUNNING"],
    ] as const) {
      const areSo = (states: readonly string[]) => states.every((one) => one === state);
      await eventually(`all of ${kind}`, () => statesOf(kind), areSo);
    }
    for (const id of namesOf("delete")) {
      expect((await refusalOf(at.get(id))).reason).toBe("SANDBOX_NOT_FOUND");
    }
    expect(await Promise.all(namesOf("leave").map(at.get)), "nothing came to the others").toEqual(left);
    expect(await at.containers()).toHaveLength(4 * ofEachKind + 1);
    await witness.check(at);
  },
  150_000 + frozenMs + ofEachKind * 10_000,
);

const rounded = (value: number) => Math.round(value);

/** Asks until it is answered with success. Returns how long the slowest call took. */
async function insist(ask: () => Promise<unknown>): Promise<{ readonly slowestMs: number }> {
  let slowestMs = 0;
  for (;;) {
    const began = performance.now();
    const isDone = await ask().then(
      () => true,
      () => false,
    );
    slowestMs = Math.max(slowestMs, performance.now() - began);
    if (isDone) return { slowestMs };
    await sleep(200);
  }
}

/** Reads what a daemon tells without its engine, one call after the other. */
async function read(
  { sandboxes, get }: TestHost,
  reads: { slowestMs: number; count: number },
  isOver: () => boolean,
): Promise<void> {
  const questions = [
    () => get("leave-0"),
    () => sandboxes.listSandboxes({ pageSize: 1_000 }),
    () => sandboxes.getSandboxStats({ sandboxId: "leave-1" }),
  ];
  while (!isOver()) {
    for (const ask of questions) {
      const began = performance.now();
      await ask();
      reads.slowestMs = Math.max(reads.slowestMs, performance.now() - began);
      reads.count += 1;
    }
    await sleep(100);
  }
}

/** What the daemon has in use. */
function usageOf({ daemon }: TestHost) {
  const of = (file: string) => readFileSync(`/proc/${daemon.pid()}/${file}`, "latin1");
  const [, , , , , , , , , , , userTicks = 0, systemTicks = 0] = of("stat")
    .slice(of("stat").lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  return {
    descriptors: readdirSync(`/proc/${daemon.pid()}/fd`).length,
    residentBytes: Number(/VmRSS:\s+(\d+) kB/.exec(of("status"))?.[1]) * 1_024,
    // a tick is 10 ms wherever Linux runs: see time(7)
    processorMs: (userTicks + systemTicks) * 10,
  };
}
