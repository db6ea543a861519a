// The wall clock is set under a running daemon: leases go by time that passes, and the sequence of events by itself. Only the
// daemon's own view of that one clock is changed, by libfaketime; the machine's stays as it is.

import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { eventsAfter } from "../harness/events.ts";
import {
  eventually,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

const library = ["x86_64", "aarch64"]
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)
  .find(existsSync);
const obstacle = engineObstacle ?? (library === undefined ? "no libfaketime" : undefined);

const shortMs = 4_000;
const hourMs = 3_600_000;

test.skipIf(obstacle !== undefined).each([1, -1])(
  `a wall clock that is set by %d h ends no lease, and keeps none from ending (${obstacle ?? "libfaketime"})`,
  async (hours) => {
    const clock = settableClock();
    const host = await startHost({ env: clock.env });
    try {
      // so that a jump either way crosses its end, if that went by the wall clock
      await leased(host, "long", hourMs / 2);
      const began = performance.now();
      await leased(host, "short", shortMs);
      clock.set(hours);
      const told = await eventually(
        "the condition",
        async () => present((await host.host.getHost({})).host).conditions.filter(({ active }) => active),
        (found) => found.some(({ type }) => type === HostConditionType.CLOCK_CHANGED),
      );
      expect(told[0]?.message).toContain(`set ${hours > 0 ? "forward" : "back"} by 3600 s`);
      expect(performance.now() - began, "it was set while the lease ran").toBeLessThan(shortMs);
      expect((await host.get("short")).sandboxId, "not expired by the jump").toBe("short");

      await eventually(
        "the end of the lease",
        () => refusalOf(host.get("short")),
        ({ reason }) => reason === "SANDBOX_NOT_FOUND",
      );
      const lastedMs = performance.now() - began;
      expect(lastedMs).toBeGreaterThan(shortMs - 100);
      expect(lastedMs).toBeLessThan(shortMs + 3_000);

      // a daemon that starts under the new clock goes on with the time of the one before
      await host.daemon.restart();
      await leased(host, "next", shortMs);
      await sleep(shortMs / 2);
      const { lease } = present((await host.get("long")).status);
      const endsInMs = Number(present(lease?.expireTime).seconds) * 1_000 - (Date.now() + hours * hourMs);
      expect(Math.abs(endsInMs - hourMs / 2), "shown by the clock as it is set").toBeLessThan(60_000);
      expect((await host.get("next")).sandboxId).toBe("next");
      await eventually(
        "the end of the next lease",
        () => refusalOf(host.get("next")),
        ({ reason }) => reason === "SANDBOX_NOT_FOUND",
      );
      const numbers = (await eventsAfter(host, 0n)).map(({ sequence }) => Number(sequence));
      expect(numbers).toEqual(numbers.map((_, index) => index + 1));
    } finally {
      await host.daemon.cleanup();
      clock.close();
    }
  },
);

async function leased({ sandboxes }: TestHost, sandboxId: string, ttlMs: number): Promise<void> {
  const spec = { ...specOf(sleeping), lifetime: { ttl: { seconds: BigInt(ttlMs / 1_000) } } };
  await sandboxes.createSandbox({ sandboxId, tenant, spec });
}

/** A wall clock that can be set, for a process that has this environment. */
function settableClock() {
  const directory = mkdtempSync(join(tmpdir(), "clock-"));
  const file = join(directory, "offset");
  const set = (hours: number) => {
    // at once: a file that is half written would be another time
    writeFileSync(`${file}.new`, `${hours < 0 ? "" : "+"}${hours}h\n`);
    renameSync(`${file}.new`, file);
  };
  set(0);
  return {
    env: {
      LD_PRELOAD: library ?? "",
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
    set,
    close: () => rmSync(directory, { recursive: true, force: true }),
  };
}
