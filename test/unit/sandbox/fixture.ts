// What the tests of the domain share: a whole record and a whole container, to be changed where a test cares.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { onTestFinished } from "vitest";
import type { Container } from "../../../src/engine/runtime.ts";
import {
  actors,
  earlierSpec,
  type Resources,
  type SandboxRecord,
  type Spec,
  type State,
} from "../../../src/sandbox/record.ts";
import { openStore, type Store } from "../../../src/store/store.ts";

export const resources: Resources = {
  cpuMillis: 500,
  cpuRequestMillis: 250,
  memoryBytes: 64 * 2 ** 20,
  memoryRequestBytes: 32 * 2 ** 20,
  pids: 64,
  openFiles: 1_024,
  tmpfsBytes: 8 * 2 ** 20,
  tmpfsInodes: 1_000,
  shmBytes: 2 ** 20,
  logBytes: 4 * 2 ** 20,
};

const spec: Spec = {
  template: "",
  image: "busybox:latest",
  command: ["sh", "-c"],
  args: ["sleep 60"],
  env: { GREETING: "hello" },
  workingDir: "/tmp",
  labels: { team: "a" },
  resources,
  networkMode: "NONE",
  stopGraceMs: 10_000,
  ...earlierSpec,
};

export const bootId = "this-boot";
export const startedAt = "2026-01-01T10:00:00.123456789Z";

/** A sandbox that runs since this boot, with some of it changed. */
export function recordOf(change: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: "one",
    instance: "instance-one",
    tenant: "acme",
    uid: 20_001,
    spec,
    requestHash: "hash",
    generation: 1,
    createdAtMs: 1_700_000_000_000,
    wanted: "RUNNING",
    state: "RUNNING",
    transition: {
      from: "CREATING",
      to: "RUNNING",
      reason: "PROGRESS",
      message: "runs",
      actor: actors.policy,
      timeMs: 1_700_000_000_500,
    },
    stopGraceMs: 10_000,
    containerId: "c1",
    imageId: "sha256:1",
    imageVolumes: [],
    endedRun: "",
    bootId,
    ...change,
  };
}

/** A running container, with some of it changed. */
export function containerOf(change: Partial<Container> = {}): Container {
  return {
    id: "c1",
    name: "sandboxd-h-one",
    labels: {},
    state: "running",
    imageId: "sha256:1",
    pid: 100,
    startedAt,
    finishedAt: "",
    exitCode: 0,
    oomKilled: false,
    error: "",
    limits: { cpuMillis: 500, cpuWeight: 256, memoryBytes: 64 * 2 ** 20, pids: 64 },
    ...change,
  };
}

export const states: readonly State[] = [
  "PENDING",
  "PULLING",
  "CREATING",
  "RUNNING",
  "BACKING_OFF",
  "PAUSING",
  "PAUSED",
  "RESUMING",
  "STOPPING",
  "STOPPED",
  "FAILED",
  "DELETING",
  "DELETED",
];

export const anyResources: fc.Arbitrary<Resources> = fc
  .record({
    cpuMillis: fc.integer({ min: 1, max: 4_000 }),
    memoryBytes: fc.integer({ min: 1, max: 2 ** 32 }),
    pids: fc.integer({ min: 1, max: 4_000 }),
    cpuShare: fc.double({ min: 0, max: 1, noNaN: true }),
    memoryShare: fc.double({ min: 0, max: 1, noNaN: true }),
  })
  .map(({ cpuMillis, memoryBytes, pids, cpuShare, memoryShare }) => ({
    ...resources,
    cpuMillis,
    memoryBytes,
    pids,
    cpuRequestMillis: Math.ceil(cpuMillis * cpuShare),
    memoryRequestBytes: Math.ceil(memoryBytes * memoryShare),
  }));

/** A store in a directory of the test's own. */
export function temporaryStore(): Store {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-store-"));
  const store = openStore({ directory, eventRetention: { count: 10_000, ageMs: 3_600_000 } });
  onTestFinished(() => {
    store.close();
    rmSync(directory, { recursive: true });
  });
  return store;
}
