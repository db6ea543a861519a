// The uplink and schedulers that were away for long, read slowly, or fall silent: nothing piles up on the host.

import { once } from "node:events";
import { constants, createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test } from "vitest";
import { EventSchema } from "../../gen/sandboxd/v1/event_pb.ts";
import { ConnectResponseSchema } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { createFakeSource, eventAt } from "../unit/scheduler/fixture.ts";
import {
  closeAll,
  closeLater,
  heapMib,
  hostId,
  pause,
  portOf,
  proxyTo,
  schedulerOf,
  until,
  uplinkOf,
} from "./uplink-fixture.ts";

afterEach(closeAll);

describe("a scheduler that was away", () => {
  test("gets 100,000 events in order, and memory stays flat", async () => {
    const source = createFakeSource();
    const uplink = uplinkOf({ source, endpoints: ["http://127.0.0.1:1"] });
    await until(() => expect(uplink.status().state).toBe("waiting"));
    for (let count = 0; count < 100_000; count += 100) source.append(100);
    await uplink.close();

    const scheduler = await schedulerOf({ keepEvents: 10 });
    scheduler.setPace({ heartbeatMs: 100 });
    uplinkOf({ source, endpoints: [scheduler.url] });
    await until(() => expect(scheduler.host(hostId)?.receivedSequence).toBeGreaterThan(20_000), 60_000);
    const early = heapMib();
    const beats = scheduler.host(hostId)?.heartbeats ?? 0;
    const startMs = performance.now();
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(100_000), 60_000);
    const periods = (performance.now() - startMs) / 100;
    expect(heapMib() - early).toBeLessThan(10);
    // heartbeats keep their pace among 80,000 events
    expect((scheduler.host(hostId)?.heartbeats ?? 0) - beats).toBeGreaterThan(periods / 4);
    expect(scheduler.checker.record(hostId, "epoch-1")).toMatchObject({
      unique: 100_000,
      repeats: 0,
      gaps: [],
    });
    expect(scheduler.checker.violations()).toEqual([]);
  }, 180_000);
});

describe("a scheduler that reads slowly", () => {
  test("gets heartbeats among its events; stats are dropped and counted; all events arrive", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource({ statsSandboxes: 2_000 });
    uplinkOf({ source, endpoints: [scheduler.url], periods: { heartbeatMs: 200, statsMs: 300 } });
    await until(() => expect(scheduler.host(hostId)?.connected).toBe(true));
    scheduler.stallReading();
    source.append(3_000);
    // several periods in which nothing is read: the transport's windows fill, then everything waits
    await pause(2_000);
    scheduler.stallReading(2);
    const before = scheduler.host(hostId)?.heartbeats ?? 0;
    await until(() => {
      expect(scheduler.host(hostId)?.droppedStats).toBeGreaterThan(0);
      expect(scheduler.host(hostId)?.heartbeats).toBeGreaterThan(before + 3);
    });
    scheduler.resumeReading();
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(3_000));
    expect(scheduler.host(hostId)?.sessions).toBe(1);
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("costs no memory while it reads nothing at all", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource({ statsSandboxes: 200 });
    uplinkOf({ source, endpoints: [scheduler.url], periods: { heartbeatMs: 100, statsMs: 1_000 } });
    await until(() => expect(scheduler.host(hostId)?.connected).toBe(true));
    scheduler.stallReading();
    source.append(1_000);
    await pause(1_000);
    const early = heapMib();
    for (let count = 0; count < 1_000_000; count += 1_000) source.append(1_000);
    await pause(1_000);
    expect(heapMib() - early).toBeLessThan(5);
  });

  test("is left when it reads nothing for the stall timeout", async () => {
    const scheduler = await schedulerOf();
    const source = createFakeSource({ statsSandboxes: 2_000 });
    const uplink = uplinkOf({
      source,
      endpoints: [scheduler.url],
      periods: { heartbeatMs: 100, statsMs: 100 },
      limits: { stallTimeoutMs: 500 },
    });
    await until(() => expect(scheduler.host(hostId)?.connected).toBe(true));
    scheduler.stallReading();
    await until(() => expect(uplink.status().lastFailure).toContain("has read nothing"));
    scheduler.resumeReading();
    await until(() => expect(uplink.status().state).toBe("live"));
  });

  test("is given no more than its flow control takes: what waits, waits on the host's disk", async () => {
    const url = await bareScheduler((stream) => void stream.pause());
    const source = createFakeSource();
    source.append(100_000);
    const uplink = uplinkOf({
      source,
      endpoints: [url],
      limits: { window: 100_000 },
    });
    await until(() => expect(uplink.status().state).toBe("live"));
    await pause(1_000);
    const status = uplink.status();
    const told = status.state === "live" ? status.toldSequence : 0;
    const bytes = told * toBinary(EventSchema, eventAt(50_000)).length;
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(70_000);
  });
});

describe("a peer that falls silent", () => {
  test("is found by keepalive, and another connection is made", async () => {
    const scheduler = await schedulerOf();
    const proxy = await proxyTo(portOf(scheduler.url));
    const source = createFakeSource();
    const uplink = uplinkOf({
      source,
      endpoints: [proxy.url],
      // a busy machine answers late, too
      limits: { keepaliveMs: 300, keepaliveTimeoutMs: 2_000 },
    });
    await until(() => expect(uplink.status().state).toBe("live"));
    const startMs = performance.now();
    proxy.silence();
    await until(() => expect(uplink.status().state).not.toBe("live"), 20_000);
    expect(performance.now() - startMs).toBeLessThan(10_000);
    proxy.speak();
    source.append(5);
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(5), 30_000);
    // the host's second session replaces the first, which the scheduler still believes in
    expect(scheduler.host(hostId)).toMatchObject({ connected: true });
    expect(scheduler.checker.violations()).toEqual([]);
  });

  test("before Welcome is given up after the bound", async () => {
    const silent = await schedulerOf({ greet: () => ({ kind: "silence" }) });
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [silent.url],
      limits: { welcomeTimeoutMs: 200 },
    });
    await until(() => expect(uplink.status().lastFailure).toContain("no Welcome within 0.2 s"));
  });
});

describe("a scheduler that finds pings too many", () => {
  test("is pinged half as often, and the log says what to set", async () => {
    const pingsAfterMs: number[] = [];
    const url = await bareScheduler(({ session }) => {
      const openedMs = performance.now();
      session?.once("ping", () => {
        pingsAfterMs.push(performance.now() - openedMs);
        session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM, 0, Buffer.from("too_many_pings"));
        session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      });
    });
    const uplink = uplinkOf({ source: createFakeSource(), endpoints: [url], limits: { keepaliveMs: 200 } });
    await until(() => expect(pingsAfterMs.length).toBe(3));
    expect(pingsAfterMs[1]).toBeGreaterThan(350);
    expect(pingsAfterMs[2]).toBeGreaterThan(700);
    expect(uplink.status().lastFailure).toContain("docs/scheduler.md");
  });
});

/** Says Welcome and nothing more; the rest is the caller's. Returns where it listens. */
async function bareScheduler(opened: (stream: ServerHttp2Stream) => void): Promise<string> {
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    opened(stream);
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
    const welcome = create(ConnectResponseSchema, {
      message: { case: "welcome", value: { sessionId: "x" } },
    });
    stream.write(sizeDelimited(toBinary(ConnectResponseSchema, welcome)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closeLater(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** As gRPC puts a message on the stream, uncompressed. */
function sizeDelimited(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
