// A crowd at the door: many creates at once, half of whose callers go away before they are answered.
// SANDBOXD_TEST_CROWD=<number> makes it a larger one.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type Call, type EngineDoor, openDoor } from "../harness/engine-door.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

const creates = Number(process.env["SANDBOXD_TEST_CROWD"] ?? 100);
const concurrentStarts = 3;
const tiny = { cpuMillis: 10n, memoryBytes: BigInt(8 * mebibyte), pids: 8n };

describe.skipIf(engineObstacle !== undefined)(`a crowd (${engineObstacle ?? "engine"})`, () => {
  let door: EngineDoor;
  let witness: EventWitness;
  let host: TestHost;
  beforeEach(async () => {
    door = await openDoor(sharedEngine());
    witness = await witnessEvents();
    host = await startHost({
      door: door.socket,
      config: {
        capacity: { concurrent_starts: concurrentStarts },
        // all on one session: where calls wait for a place, those that are given up get others refused
        listen: { limits: { streams_per_session: creates + 56 } },
        ...witness.config,
      },
    });
  });
  afterEach(async () => {
    await host?.daemon.cleanup();
    await witness?.close();
    await door?.close();
  });

  test(`${creates} creates at once, half of them given up, make one container each, a few at a time`, async () => {
    const ids = Array.from({ length: creates }, (_, index) => `crowd-${index}`);
    const answers = await Promise.allSettled(
      ids.map((sandboxId, index) => {
        const request = { sandboxId, tenant, spec: { ...specOf(sleeping), resources: tiny } };
        const patience = index % 2 === 0 ? {} : { signal: AbortSignal.timeout(100 + index * 10) };
        return host.sandboxes.createSandbox(request, patience);
      }),
    );
    const patient = answers.filter((_, index) => index % 2 === 0);
    expect(
      patient.filter(({ status }) => status === "rejected"),
      "who waits is answered",
    ).toEqual([]);
    const givenUp = answers.filter(({ status }) => status === "rejected");
    expect(givenUp.length, "callers did go away").toBeGreaterThan(creates / 4);

    const list = async () => (await host.sandboxes.listSandboxes({ pageSize: 1000 })).sandboxes;
    const sandboxes = await eventually(
      "rest",
      list,
      (found) => found.every(isIn(SandboxState.RUNNING)),
      60_000,
    );
    // a caller may be gone before its request was
    expect(sandboxes.length).toBeGreaterThanOrEqual(creates - givenUp.length);
    const containers = await host.containers();
    expect(containers.map(({ Id }) => Id).sort()).toEqual(
      sandboxes.map(({ status }) => present(status).containerId).sort(),
    );
    const { allocated } = present((await host.host.getHost({})).host);
    expect(present(allocated).sandboxes, "what is promised is what there is").toBe(BigInt(sandboxes.length));
    const starts = door.calls.filter(({ path }) => /^\/containers\/(create|[^/]+\/start)$/.test(path));
    expect(starts.length).toBeGreaterThanOrEqual(2 * sandboxes.length);
    expect(mostAtOnce(starts), "as the engine saw them").toBe(concurrentStarts);

    await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
    expect(await host.containers()).toEqual([]);
    expect(present(present((await host.host.getHost({})).host).allocated).sandboxes).toBe(0n);
    await witness.check(host);
  });
});

/** Of calls that overlap, the most that were open together. */
function mostAtOnce(calls: readonly Call[]): number {
  const edges = calls.flatMap(({ beganMs, endedMs = Number.POSITIVE_INFINITY }) => [
    { ms: beganMs, change: 1 },
    { ms: endedMs, change: -1 },
  ]);
  edges.sort((a, b) => a.ms - b.ms || a.change - b.change);
  let open = 0;
  return Math.max(
    0,
    ...edges.map(({ change }) => {
      open += change;
      return open;
    }),
  );
}
