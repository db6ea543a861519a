// What a sandbox's main command wrote, as a caller reads it.

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
    const following = (async () => {
      for await (const { data } of host.sandboxes.streamLogs({ sandboxId: "followed", follow: true })) {
        lines.push(Buffer.from(data).toString());
      }
    })();
    await expect.poll(() => lines).toEqual(["begun\n"]);
    await host.sandboxes.stopSandbox({ sandboxId: "followed", grace: { seconds: 10n } });
    await host.sandboxes.startSandbox({ sandboxId: "followed" });
    await expect.poll(() => lines, { timeout: 10_000 }).toEqual(["begun\n", "begun\n"]);
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
});
