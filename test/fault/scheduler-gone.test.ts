// A daemon under load whose scheduler reads nothing, and is then gone; and one that is itself stopped for a while. Events wait
// on the disk and are told in order; statistics are dropped; memory stays where it was.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

const stalledMs = 6_000;
const goneMs = 27_000;
const stoppedMs = 20_000;

describe.skipIf(engineObstacle !== undefined)(`a lost scheduler (${engineObstacle ?? "engine"})`, () => {
  let line: Line;
  let witness: EventWitness;
  let host: TestHost;
  let updates = 0;
  beforeAll(async () => {
    witness = await witnessEvents({ keepEvents: 10 });
    witness.scheduler.setTerm(5);
    line = await lineTo(Number(new URL(witness.scheduler.url).port));
    host = await startHost({
      config: {
        scheduler: { endpoints: [line.url], heartbeat_period: "500ms", stats_period: "1s" },
        sampling: { period: "200ms" },
      },
    });
  });
  afterAll(async () => {
    await host?.daemon.cleanup();
    line?.cut();
    await witness?.close();
  });

  const view = () => present(witness.scheduler.host(host.daemon.hostId));
  const residentBytes = () => {
    const status = readFileSync(`/proc/${host.daemon.pid()}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1_024;
  };

  test("costs no memory and no event, however many there are", async () => {
    await Promise.all(["a", "b"].map((id) => host.run(id, "while :; do date; sleep 1; done")));
    await eventually(
      "the scheduler",
      () => view().statsBatches,
      (count) => count > 0,
    );
    let isOver = false;
    const load = Promise.all(["a", "b", "a", "b"].map((id, caller) => relabel(id, caller, () => isOver)));

    witness.scheduler.stallReading();
    await sleep(stalledMs);
    witness.scheduler.resumeReading();
    await eventually(
      "dropped statistics",
      () => view().droppedStats,
      (count) => count > 0,
    );

    line.cut();
    await sleep(goneMs / 3);
    const [early, bytes] = [updates, residentBytes()];
    await sleep((goneMs * 2) / 3);
    const events = updates - early;
    expect(events, "there was load").toBeGreaterThan(1_000);
    expect(residentBytes() - bytes, `${events} events later`).toBeLessThan(16 * mebibyte);
    isOver = true;
    await load;

    const batches = view().statsBatches;
    await line.restore();
    const told = await witness.check(host);
    expect(told.length).toBeGreaterThan(events);
    expect(view().statsBatches - batches, "no statistics of the outage").toBeLessThan(30);
  });

  /** Changes labels as fast as it is answered: an event each, and nothing for the engine to do. */
  async function relabel(sandboxId: string, caller: number, isOver: () => boolean): Promise<void> {
    for (let turn = 0; !isOver(); turn += 1) {
      await host.sandboxes.updateSandbox({ sandboxId, labels: { [`caller-${caller}`]: String(turn) } });
      updates += 1;
      await sleep(4);
    }
  }

  test("a daemon that is stopped and goes on tells what happened meanwhile, once, and keeps its term", async () => {
    await host.run("ends", "sleep 5; exit 3");
    await host.daemon.kill("SIGSTOP");
    const call = host.sandboxes.createSandbox({ sandboxId: "asked", tenant, spec: specOf(sleeping) });
    await sleep(stoppedMs);
    await host.daemon.kill("SIGCONT");
    expect((await call).sandbox?.status?.state).toBe(SandboxState.RUNNING);
    const ended = await host.until("ends", isIn(SandboxState.FAILED));
    expect(ended.status?.exit?.code).toBe(3);
    const headers = { "sandboxd-term": "4" };
    const late = host.sandboxes.stopSandbox({ sandboxId: "asked" }, { headers });
    expect((await refusalOf(late)).reason).toBe("STALE_TERM");
    const told = (await witness.check(host)).filter(({ sandboxId }) => sandboxId === "ends");
    expect(told.filter(({ sandbox }) => isIn(SandboxState.FAILED)(present(sandbox)))).toHaveLength(1);
  });
});

/** A connection between host and scheduler that can be cut, so that nobody listens, and restored. */
interface Line {
  readonly url: string;
  cut(): void;
  restore(): Promise<void>;
}

async function lineTo(port: number): Promise<Line> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        sockets.delete(from);
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const own = (server.address() as AddressInfo).port;
  return {
    url: `http://127.0.0.1:${own}`,
    cut() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
    async restore() {
      server.listen(own, "127.0.0.1");
      await once(server, "listening");
    },
  };
}
