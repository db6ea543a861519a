// The uplink against a real scheduler over loopback: what both exchange, and what remains when connections are lost.

import { create } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test } from "vitest";
import { WelcomeSchema } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { createFakeSource, sandboxNamed } from "../unit/scheduler/fixture.ts";
import { closeAll, hostId, schedulerOf, until, uplinkOf } from "./uplink-fixture.ts";

afterEach(closeAll);

describe("a host and its scheduler", () => {
  test("exchange hello, snapshot, heartbeats, stats and events, and keep the contract", async () => {
    const scheduler = await schedulerOf();
    scheduler.setPace({ heartbeatMs: 100 });
    const source = createFakeSource();
    source.sandboxes = Array.from({ length: 250 }, (_, index) => sandboxNamed(`s-${index}`));
    source.append(20);
    const uplink = uplinkOf({ source, endpoints: [scheduler.url] });
    await until(() => {
      expect(scheduler.host(hostId)).toMatchObject({ connected: true, receivedSequence: 20, snapshots: 1 });
      expect(scheduler.host(hostId)?.heartbeats).toBeGreaterThan(3);
      expect(scheduler.host(hostId)?.statsBatches).toBeGreaterThan(0);
      expect(source.lastAcknowledgedSequence()).toBe(20);
    });
    expect(scheduler.host(hostId)?.sandboxes.size).toBe(250);
    expect(uplink.status()).toMatchObject({ state: "live", acknowledgedSequence: 20, term: 0 });
    source.sandboxes = [sandboxNamed("only")];
    scheduler.resync(hostId);
    await until(() => expect([...(scheduler.host(hostId)?.sandboxes.keys() ?? [])]).toEqual(["only"]));
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("part with Goodbye when the daemon stops, within its bound, and nothing stays open", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource();
    const uplink = uplinkOf({ source, endpoints: [scheduler.url] });
    await until(() => expect(uplink.status().state).toBe("live"));
    const startMs = performance.now();
    await uplink.close();
    expect(performance.now() - startMs).toBeLessThan(1_000);
    expect(uplink.status().state).toBe("closed");
    await until(() =>
      expect(scheduler.host(hostId)).toMatchObject({
        connected: false,
        goodbye: "The daemon stops; its sandboxes keep running.",
      }),
    );
    expect(source.listeners()).toBe(0);
  });

  test("do not hold up the daemon's end when the scheduler is away", async () => {
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: ["http://127.0.0.1:1"],
      limits: { backoffBaseMs: 60_000, backoffCapMs: 60_000 },
    });
    await until(() => expect(uplink.status()).toMatchObject({ state: "waiting", attempts: 1 }));
    const startMs = performance.now();
    await uplink.close();
    expect(performance.now() - startMs).toBeLessThan(100);
  });
});

describe("after a lost connection", () => {
  test("the host comes back and neither loses nor repeats events beyond the last acknowledgement", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource();
    uplinkOf({ source, endpoints: [scheduler.url] });
    for (let round = 1; round <= 5; round += 1) {
      source.append(200);
      await until(() => expect(scheduler.host(hostId)?.receivedSequence).toBeGreaterThan((round - 1) * 200));
      scheduler.dropSession(hostId);
      await until(() => expect(scheduler.host(hostId)?.sessions).toBe(round + 1));
    }
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(1_000));
    expect(scheduler.checker.record(hostId, "epoch-1")).toMatchObject({
      highest: 1_000,
      unique: 1_000,
      gaps: [],
    });
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("lost acknowledgements cost repeats, and neither loss nor another event", async () => {
    const scheduler = await schedulerOf({
      greet: (_hello, welcome) => ({
        kind: "welcome",
        // a scheduler that says nothing of what it has
        welcome: create(WelcomeSchema, { sessionId: welcome.sessionId }),
      }),
    });
    const source = createFakeSource();
    uplinkOf({ source, endpoints: [scheduler.url] });
    scheduler.stopAcking();
    source.append(300);
    await until(() => expect(scheduler.host(hostId)?.receivedSequence).toBe(300));
    expect(source.lastAcknowledgedSequence()).toBe(0);
    scheduler.dropSession(hostId);
    await until(() => expect(scheduler.checker.record(hostId, "epoch-1")).toMatchObject({ repeats: 300 }));
    scheduler.startAcking();
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(300));
    expect(scheduler.checker.record(hostId, "epoch-1")).toMatchObject({ unique: 300, repeats: 300 });
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("replayed and older acknowledgements change nothing", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource();
    uplinkOf({ source, endpoints: [scheduler.url] });
    source.append(10);
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(10));
    for (const sequence of [10, 3, 0, 10]) scheduler.ackTo(hostId, sequence);
    source.append(1);
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(11));
    expect(scheduler.host(hostId)?.sessions).toBe(1);
  });

  test("an acknowledgement from the future ends the session, and nothing is lost by it", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource();
    const uplink = uplinkOf({ source, endpoints: [scheduler.url] });
    source.append(10);
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(10));
    scheduler.ackTo(hostId, 500);
    await until(() => expect(scheduler.host(hostId)?.sessions).toBe(2));
    expect(uplink.status().lastFailure).toContain("Ack of 500");
    expect(source.lastAcknowledgedSequence()).toBe(10);
    source.append(10);
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(20));
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("events that retention took before they were told are named as a gap", async () => {
    const source = createFakeSource();
    source.append(500);
    source.trim(400);
    const scheduler = await schedulerOf();
    uplinkOf({ source, endpoints: [scheduler.url] });
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(500));
    expect(scheduler.checker.record(hostId, "epoch-1")).toMatchObject({ unique: 100, gaps: [[1, 400]] });
    expect(scheduler.checker.violations()).toEqual([]);
  });
});
