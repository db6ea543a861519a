// What a sandbox's main command wrote, as a caller reads it.

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sandbox } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { LogStream, type StreamLogsResponse } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { mebibyte, present, refusalOf, startHost, type TestHost } from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`logs (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost();
  });
  afterAll(() => host?.daemon.cleanup());

  type Options = Omit<Parameters<TestHost["sandboxes"]["streamLogs"]>[0], "$typeName" | "sandboxId">;

  async function read(sandboxId: string, options: Options = {}): Promise<readonly StreamLogsResponse[]> {
    const chunks: StreamLogsResponse[] = [];
    for await (const chunk of host.sandboxes.streamLogs({ sandboxId, ...options })) chunks.push(chunk);
    return chunks;
  }
  const linesOf = (chunks: readonly StreamLogsResponse[]) =>
    chunks.map(({ data }) => Buffer.from(data).toString());

  test("lines come in order, with their stream and a rising time, as they were written", async () => {
    await host.run("lines", "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf 'three'; exec sleep 1000");
    await expect.poll(async () => (await read("lines")).length).toBeGreaterThanOrEqual(2);
    const chunks = await read("lines");
    expect(linesOf(chunks).slice(0, 2)).toEqual(["one\n", "two\n"]);
    expect(chunks.slice(0, 2).map(({ stream }) => stream)).toEqual([LogStream.STDOUT, LogStream.STDERR]);
    const times = chunks.map(({ time }) => Number(time?.seconds) + Number(time?.nanos) / 1e9);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(Math.abs((times[0] ?? 0) * 1_000 - Date.now())).toBeLessThan(60_000);
  });

  test("one stream, the last lines, and what was written since a time can be asked for", async () => {
    await host.run(
      "parts",
      "for i in 1 2 3; do echo out$i; done; sleep 1.2; echo err >&2; echo out4; exec sleep 1000",
    );
    await expect.poll(async () => (await read("parts")).length, { timeout: 10_000 }).toBe(5);
    expect(linesOf(await read("parts", { stream: LogStream.STDERR }))).toEqual(["err\n"]);
    expect(linesOf(await read("parts", { stream: LogStream.STDOUT }))).toEqual([
      "out1\n",
      "out2\n",
      "out3\n",
      "out4\n",
    ]);
    expect(linesOf(await read("parts", { tailLines: 2 })).sort()).toEqual(["err\n", "out4\n"]);
    expect(await read("parts", { tailLines: 0 })).toEqual([]);
    const [first, , third] = await read("parts");
    const since = present(third?.time);
    expect(linesOf(await read("parts", { since })), "the line of that time included").toContain("out3\n");
    expect(linesOf(await read("parts", { since }))).not.toContain("out1\n");
    expect(await read("parts", { since: present(first?.time) })).toHaveLength(5);
    expect(await read("parts", { since: { seconds: since.seconds + 1_000n } })).toEqual([]);
  });

  test("bytes that a terminal would act on come as they were written", async () => {
    await host.run("bytes", "printf '\\000\\001\\177\\n'; printf '\\033[2J\\n'");
    await expect.poll(async () => (await read("bytes")).length).toBe(2);
    expect((await read("bytes")).map(({ data }) => [...data])).toEqual([
      [0, 1, 127, 10],
      [27, 91, 50, 74, 10],
    ]);
  });

  test("what follows goes on over a stop and a start, and ends with the sandbox", async () => {
    await host.run("followed", "echo begun; trap 'exit 0' TERM; while :; do sleep 0.05; done");
    const lines: string[] = [];
    const sequences: bigint[] = [];
    const following = (async () => {
      for await (const { data, sequence } of host.sandboxes.streamLogs({
        sandboxId: "followed",
        follow: true,
      })) {
        lines.push(Buffer.from(data).toString());
        sequences.push(sequence);
      }
    })();
    await expect.poll(() => lines).toEqual(["begun\n"]);
    await host.sandboxes.stopSandbox({ sandboxId: "followed", grace: { seconds: 10n } });
    await host.sandboxes.startSandbox({ sandboxId: "followed" });
    await expect.poll(() => lines, { timeout: 10_000 }).toEqual(["begun\n", "begun\n"]);
    expect(sequences[1]).toBeGreaterThan(sequences[0] ?? 0n);
    await host.sandboxes.deleteSandbox({ sandboxId: "followed" });
    await following;
    expect(lines).toEqual(["begun\n", "begun\n"]);
  });

  test("logs of a sandbox that has ended can be read; those of one that does not exist cannot", async () => {
    await host.run("ended", "echo last words; exit 1");
    await expect.poll(async () => linesOf(await read("ended"))).toEqual(["last words\n"]);
    expect(await refusalOf(read("never-was"))).toMatchObject({
      code: "NotFound",
      reason: "SANDBOX_NOT_FOUND",
    });
    expect((await refusalOf(read("ended", { tailLines: -1 }))).code).toBe("InvalidArgument");
  });

  test("a flood to a reader that does not read costs the daemon no memory, and others nothing", async () => {
    await host.run(
      "flood",
      "exec yes 0123456789012345678901234567890123456789012345678901234567890123456789",
      {
        cpuMillis: 500n,
        logBytes: BigInt(mebibyte),
      },
    );
    const residentBytes = () => {
      const status = readFileSync(`/proc/${host.daemon.pid()}/status`, "utf8");
      return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
    };
    const ending = new AbortController();
    const readers = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const stream = host.sandboxes.streamLogs(
          { sandboxId: "flood", follow: true },
          { signal: ending.signal },
        );
        const reader = stream[Symbol.asyncIterator]();
        await reader.next();
        return reader;
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const before = residentBytes();
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect(residentBytes() - before).toBeLessThan(40 * mebibyte);
    const began = performance.now();
    await host.get("flood");
    expect(performance.now() - began).toBeLessThan(1_000);
    // the readers are behind, not cut off
    const next = await readers[0]?.next();
    expect(next?.value?.data.length).toBeGreaterThan(0);
    ending.abort();
    await Promise.allSettled(readers.map((reader) => reader.return?.()));
    await host.sandboxes.deleteSandbox({ sandboxId: "flood" });
  });

  describe("numbers", () => {
    const padding = "x".repeat(80);
    /** Once it is let go, writes the numbers from one on, each on a line of some length. */
    const counting = (to: number, pause = "") =>
      `until [ -e /tmp/go ]; do sleep 0.02; done; i=0; while [ $i -lt ${to} ]; do i=$((i+1)); echo "$i ${padding}"; ${pause} done; exec sleep 1000`;
    const numberOf = ({ data }: StreamLogsResponse) => Number(Buffer.from(data).toString().split(" ")[0]);
    const range = (from: number, to: number) =>
      Array.from({ length: to - from + 1 }, (_, index) => from + index);
    const plain = (chunks: readonly StreamLogsResponse[]) =>
      chunks.map(({ sequence, stream, data }) => `${sequence} ${stream} ${Buffer.from(data)}`);
    const isGap = ({ gap }: StreamLogsResponse) => gap !== undefined;

    async function letGo({ status }: Sandbox): Promise<void> {
      const container = host.docker.getContainer(present(status).containerId);
      const exec = await container.exec({ Cmd: ["touch", "/tmp/go"], AttachStdout: true });
      (await exec.start({})).resume();
    }
    async function until(
      sandboxId: string,
      options: Options,
      isLast: (chunk: StreamLogsResponse) => boolean,
      each: (chunk: StreamLogsResponse) => Promise<void> | void = () => undefined,
    ): Promise<readonly StreamLogsResponse[]> {
      const chunks: StreamLogsResponse[] = [];
      for await (const chunk of host.sandboxes.streamLogs({ sandboxId, follow: true, ...options })) {
        chunks.push(chunk);
        await each(chunk);
        if (isLast(chunk)) break;
      }
      return chunks;
    }
    const rises = (chunks: readonly StreamLogsResponse[]) =>
      chunks.every(({ sequence }, index) => index === 0 || sequence > (chunks[index - 1]?.sequence ?? 0n));

    test("rise strictly, also over pieces of one time, and whoever resumes from one sees exactly what follows", async () => {
      await host.run(
        "pieces",
        "echo a; head -c 100000 /dev/zero | tr '\\0' x; echo; echo b >&2; echo c; exec sleep 1000",
        { cpuMillis: 1_000n },
      );
      await expect.poll(async () => (await read("pieces")).length, { timeout: 10_000 }).toBe(10);
      const all = await read("pieces");
      const pieces = all.filter(({ data }) => data.length > 1_000).map(({ time }) => time?.nanos);
      expect(new Set(pieces).size, "the engine gives pieces of a line one time").toBe(1);
      expect(rises(all)).toBe(true);
      for (const [index, { sequence }] of all.entries())
        expect(plain(await read("pieces", { afterSequence: sequence }))).toEqual(plain(all.slice(index + 1)));
      expect(plain(await read("pieces", { afterSequence: 0n }))).toEqual(plain(all));
      const third = present(all[2]).sequence;
      expect(plain(await read("pieces", { afterSequence: third, tailLines: 1 }))).toEqual(
        plain(all.slice(-1)),
      );
      const errors = await read("pieces", { afterSequence: third, stream: LogStream.STDERR });
      expect(plain(errors)).toEqual(plain(all.slice(3).filter(({ stream }) => stream === LogStream.STDERR)));
      const future = refusalOf(read("pieces", { afterSequence: 2n ** 62n }));
      expect(await future).toMatchObject({ code: "OutOfRange", reason: "SEQUENCE_TRUNCATED" });
    });

    test("what is followed while the engine rotates it arrives whole, and once", async () => {
      const lines = 8_000;
      const pause = "[ $((i % 50)) -ne 0 ] || sleep 0.01;";
      const sandbox = await host.run("rotated", counting(lines, pause), {
        cpuMillis: 1_000n,
        logBytes: BigInt(mebibyte),
      });
      const following = until("rotated", {}, (chunk) => numberOf(chunk) === lines);
      await letGo(sandbox);
      const chunks = await following;
      expect(chunks.filter(isGap)).toEqual([]);
      expect(chunks.map(numberOf)).toEqual(range(1, lines));
      expect(rises(chunks)).toBe(true);
      // what is left of it has the numbers that it had
      const left = await read("rotated");
      expect(left.length).toBeLessThan(lines);
      expect(plain(left)).toEqual(plain(chunks.slice(-left.length)));
      // and what is not is told as missing
      const [gap, ...rest] = await read("rotated", { afterSequence: present(chunks[10]).sequence });
      expect(gap?.gap?.nextSequence).toBe(left[0]?.sequence);
      expect(gap?.data.length).toBe(0);
      expect(plain(rest)).toEqual(plain(left));
      expect(plain(await read("rotated", { tailLines: 3 }))).toEqual(plain(chunks.slice(-3)));
    });

    test("a reader that is slower than the rotation is told where it missed lines, and only there", async () => {
      const lines = 30_000;
      await letGo(
        await host.run("outrun", counting(lines), { cpuMillis: 1_000n, logBytes: BigInt(mebibyte) }),
      );
      const chunks = await until(
        "outrun",
        {},
        (chunk) => numberOf(chunk) === lines,
        async ({ sequence }) => {
          if (sequence % 16n === 0n) await new Promise((resolve) => setTimeout(resolve, 1));
        },
      );
      expect(rises(chunks)).toBe(true);
      expect(chunks.some(isGap)).toBe(true);
      const told = chunks.filter((chunk) => !isGap(chunk));
      const jumps = told.filter(
        (chunk, index) => index > 0 && numberOf(chunk) !== numberOf(present(told[index - 1])) + 1,
      );
      expect(jumps.map(({ sequence }) => sequence)).toEqual(
        chunks.filter(isGap).map(({ gap }) => gap?.nextSequence),
      );
    });

    test("another life of the daemon goes on where a reader was", async () => {
      const lines = 300;
      await letGo(await host.run("survivor", counting(lines, "sleep 0.01;")));
      const before: StreamLogsResponse[] = [];
      const cut = until(
        "survivor",
        {},
        () => false,
        (chunk) => void before.push(chunk),
      );
      const ended = refusalOf(cut);
      await expect.poll(() => before.length).toBeGreaterThan(50);
      await host.daemon.kill("SIGKILL");
      await ended;
      await host.daemon.start();
      const afterSequence = present(before.at(-1)).sequence;
      const after = await until("survivor", { afterSequence }, (chunk) => numberOf(chunk) === lines);
      expect([...before, ...after].map(numberOf)).toEqual(range(1, lines));
      expect(after.filter(isGap)).toEqual([]);
    });
  });
});
