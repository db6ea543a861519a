// What sandboxes write arrives at a receiver of the Forward protocol: fluent.org's own, of its library for Node.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EventTime, FluentServer } from "@fluent-org/logger";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckVerdict } from "../../gen/sandboxd/v1/host_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  mebibyte,
  present,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

interface Arrived {
  readonly tag: string;
  readonly nanoseconds: bigint;
  readonly record: Readonly<Record<string, unknown>>;
}

class Receiver extends FluentServer {
  readonly #arrived: Arrived[];
  constructor(arrived: Arrived[], port: number) {
    super({ listenOptions: { port, host: "127.0.0.1" } });
    this.#arrived = arrived;
  }
  protected override onEntry(tag: string, time: number | EventTime, record: Arrived["record"]): void {
    this.#arrived.push({
      tag,
      nanoseconds: typeof time === "number" ? 0n : BigInt(time.epoch) * 1_000_000_000n + BigInt(time.nano),
      record,
    });
  }
}

describe.skipIf(engineObstacle !== undefined)(`log shipping (${engineObstacle ?? "engine"})`, () => {
  const bufferBytes = 64 * 1024;
  const arrived: Arrived[] = [];
  const directory = mkdtempSync(join(tmpdir(), "shipping-"));
  const metricsSocket = join(directory, "metrics.sock");
  let receiver: Receiver | undefined;
  let port = 0;
  let host: TestHost;

  async function open(): Promise<void> {
    receiver = new Receiver(arrived, port);
    await receiver.listen();
    port = receiver.port ?? 0;
  }
  const close = async () => {
    await receiver?.close();
    receiver = undefined;
  };
  /** Something else in the receiver's place, until it is closed. */
  async function openOther(onConnection: (socket: Socket) => void): Promise<() => Promise<void>> {
    const sockets = new Set<Socket>();
    const server: Server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    return () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      });
  }
  const of = (sandbox: string) => arrived.filter(({ record }) => record["sandbox_id"] === sandbox);
  const linesOf = (sandbox: string) => of(sandbox).map(({ record }) => String(record["log"]));
  const numbers = (to: number) => Array.from({ length: to }, (_, index) => String(index + 1));
  const distinct = (lines: readonly string[]) => [...new Set(lines)];
  /** Writes the numbers from one on, with a pause after each that has none of `pause` spared. */
  const counting = (to: number, pause: string) =>
    `i=0; while [ $i -lt ${to} ]; do i=$((i+1)); echo $i; ${pause} done; ${sleeping}`;
  const settings = (changed = {}) => ({
    metrics: { address: `unix:${metricsSocket}` },
    logs: {
      forward: {
        address: `127.0.0.1:${port}`,
        flush_interval: "50ms",
        buffer_bytes: bufferBytes,
        tag: "sandboxd.{tenant}.{template}",
        ...changed,
      },
    },
  });
  async function metric(name: string): Promise<number> {
    const text = await new Promise<string>((resolve, reject) => {
      const asked = request({ socketPath: metricsSocket, path: "/metrics" }, async (answer) => {
        let body = "";
        for await (const chunk of answer) body += chunk;
        resolve(body);
      });
      asked.on("error", reject).end();
    });
    return Number(new RegExp(`^sandboxd_log_forward_${name} (\\S+)$`, "m").exec(text)?.[1]);
  }
  const verdict = async () => {
    const { checks } = await host.host.checkHost({});
    return checks.find(({ name }) => name === "log_forwarding");
  };
  const residentBytes = () => {
    const status = readFileSync(`/proc/${host.daemon.pid()}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  };

  beforeAll(async () => {
    await open();
    host = await startHost({ config: settings() });
  });
  afterAll(async () => {
    await host?.daemon.cleanup();
    await close();
    rmSync(directory, { recursive: true, force: true });
  });

  test("each line arrives once, with its tag, its time and what it is of", async () => {
    const script = `echo one; sleep 0.1; echo two >&2; sleep 0.1; head -c 20000 /dev/zero | tr '\\0' x; echo; ${sleeping}`;
    await host.sandboxes.createSandbox({
      sandboxId: "told",
      tenant,
      spec: { ...specOf(script), labels: { team: "blue" } },
    });
    await expect.poll(() => of("told").length, { timeout: 10_000 }).toBe(4);
    const streamed: { sequence: bigint; nanoseconds: bigint }[] = [];
    for await (const { sequence, time } of host.sandboxes.streamLogs({ sandboxId: "told" })) {
      const nanoseconds = present(time).seconds * 1_000_000_000n + BigInt(present(time).nanos);
      streamed.push({ sequence, nanoseconds });
    }
    const long = (length: number) => "x".repeat(length);
    const common = { sandbox_id: "told", tenant, host: host.daemon.hostId, template: "" };
    expect(of("told").map(({ record }) => record)).toEqual(
      [
        { log: "one", stream: "stdout", partial: false },
        { log: "two", stream: "stderr", partial: false },
        { log: long(16_384), stream: "stdout", partial: true },
        { log: long(3_616), stream: "stdout", partial: false },
      ].map((line, index) => ({
        ...{ ...line, ...common, labels: { team: "blue" } },
        // the receiver has no integers beyond 2^53
        sequence: Number(streamed[index]?.sequence),
      })),
    );
    expect(distinct(of("told").map(({ tag }) => tag))).toEqual([`sandboxd.${tenant}.none`]);
    expect(of("told").map(({ nanoseconds }) => nanoseconds)).toEqual(
      streamed.map(({ nanoseconds }) => nanoseconds),
    );
    expect(await metric("connected")).toBe(1);
    expect((await verdict())?.verdict).toBe(CheckVerdict.OK);
  });

  test("over restarts of the receiver nothing is lost, and only what was on its way comes twice", async () => {
    await host.run("restarted", counting(300, "sleep 0.01;"));
    for (const lines of [50, 150]) {
      await eventually(
        "lines",
        () => linesOf("restarted").length,
        (count) => count >= lines,
      );
      await close();
      await new Promise((resolve) => setTimeout(resolve, 200));
      await open();
    }
    await expect.poll(() => distinct(linesOf("restarted")).length, { timeout: 20_000 }).toBe(300);
    expect(distinct(linesOf("restarted"))).toEqual(numbers(300));
    expect(linesOf("restarted").length - 300).toBeLessThan(100);
    expect(await metric("dropped_records_total")).toBe(0);
  });

  test("while the receiver is away memory is bounded, the oldest go and are counted, and the sandbox goes on", async () => {
    await close();
    const before = residentBytes();
    await host.run("away", counting(4_000, ""), { cpuMillis: 1_000n });
    await eventually(
      "output",
      () => host.output("away"),
      (text) => text.endsWith("\n4000\n"),
    );
    expect(await metric("buffered_bytes")).toBeLessThanOrEqual(bufferBytes);
    expect(await metric("connected")).toBe(0);
    expect(await verdict()).toMatchObject({
      verdict: CheckVerdict.WARNING,
      message: expect.stringContaining("ECONNREFUSED"),
    });
    expect(residentBytes() - before).toBeLessThan(60 * mebibyte);
    await open();
    await expect.poll(() => linesOf("away").at(-1), { timeout: 20_000 }).toBe("4000");
    await expect.poll(() => metric("buffered_bytes")).toBe(0);
    const came = linesOf("away");
    const dropped = await metric("dropped_records_total");
    expect(dropped).toBeGreaterThan(1_000);
    expect(came).toEqual(numbers(4_000).slice(dropped));
    expect(await metric("dropped_bytes_total")).toBeGreaterThan(dropped * 50);
    expect(host.daemon.logs().match(/records of sandboxes' logs were dropped/g)).toHaveLength(1);
  });

  test("a receiver that takes nothing, and one that talks nonsense, cost nothing but what the buffer cannot hold", async () => {
    await close();
    const mute = await openOther((socket) => socket.pause());
    await host.run("mute", counting(2_000, ""), { cpuMillis: 1_000n });
    await eventually(
      "output",
      () => host.output("mute"),
      (text) => text.endsWith("\n2000\n"),
    );
    const began = performance.now();
    await host.get("mute");
    expect(performance.now() - began).toBeLessThan(1_000);
    expect(await metric("buffered_bytes")).toBeLessThanOrEqual(bufferBytes);
    await mute();
    let talks = 0;
    const mad = await openOther((socket) => {
      talks += 1;
      socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    await eventually(
      "connections",
      () => talks,
      (count) => count >= 2,
    );
    await mad();
    const droppedBefore = await metric("dropped_records_total");
    await open();
    await expect.poll(() => linesOf("mute").at(-1), { timeout: 30_000 }).toBe("2000");
    expect(droppedBefore).toBe(await metric("dropped_records_total"));
    expect(linesOf("mute")).toEqual([...new Set(linesOf("mute"))]);
  });

  test("another life of the daemon goes on where the last one ended, whatever was written meanwhile", async () => {
    await host.run("resumed", counting(400, "sleep 0.01;"));
    await eventually(
      "lines",
      () => linesOf("resumed").length,
      (count) => count >= 50,
    );
    await host.daemon.restart();
    await expect.poll(() => linesOf("resumed").length, { timeout: 10_000 }).toBeGreaterThan(150);
    expect(linesOf("resumed"), "an orderly end forgets nothing").toEqual(
      numbers(400).slice(0, linesOf("resumed").length),
    );
    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    await expect.poll(() => distinct(linesOf("resumed")).length, { timeout: 20_000 }).toBe(400);
    expect(distinct(linesOf("resumed"))).toEqual(numbers(400));
    expect(linesOf("told").length, "what was sent long ago is not sent again").toBe(4);
  });

  test("a reload sends what comes to another tag, and what was not sent as well", async () => {
    const ticks = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    await host.run("moved", ticks);
    await eventually(
      "lines",
      () => linesOf("moved").length,
      (count) => count >= 5,
    );
    host.daemon.configure(settings({ tag: "other.{sandbox}.{host}" }));
    await host.daemon.kill("SIGHUP");
    const tagOf = () => of("moved").at(-1)?.tag;
    await expect.poll(tagOf, { timeout: 10_000 }).toBe(`other.moved.${host.daemon.hostId}`);
    const lines = linesOf("moved");
    expect(lines).toEqual(numbers(lines.length));
  });
});
