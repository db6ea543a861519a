// What is not the toolbox, does not answer, or answers for ever: told within bounds, and never believed.
import { execFileSync } from "node:child_process";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import { createFiles, type Files } from "../../../src/files/files.ts";
import { connectionOver } from "../../../src/toolbox/connection.ts";
import { frame, writer } from "../../../src/toolbox/protocol.ts";
import { all, id, inside, pieces, uid } from "./fixture.ts";

const MiB = 1024 * 1024;
const unavailable = expect.objectContaining({ reason: "TOOLBOX_UNAVAILABLE" });

/** Files of a sandbox in which this is what answers, whatever is asked; then it ends unless it `stays`. */
function answered(answers: Iterable<Buffer>, stays = false): Files {
  const open = () => {
    const source = answers[Symbol.iterator]();
    const socket = new Duplex({
      read() {
        const next = source.next();
        if (next.done !== true) this.push(next.value);
        else if (!stays) this.push(null);
      },
      write: (_chunk, _encoding, done) => done(),
    });
    return Promise.resolve(connectionOver(socket));
  };
  return createFiles({ link: { open, openProcess: () => Promise.resolve(undefined) } });
}

interface Told {
  readonly name: string;
  readonly type: number;
  readonly mode: number;
  readonly size: bigint;
  readonly target: string;
  readonly etag: string;
}

function info(told: Partial<Told> = {}): Buffer {
  const { name, type, mode, size, target, etag } = {
    ...{ name: "x", type: 1, mode: 0o644, size: 1n, target: "", etag: "1-2" },
    ...told,
  };
  const numbers = writer().str(name).u8(type).u32(mode).i64(size).i64(0).u32(1).u32(1);
  return numbers.str(target).str(etag).frame(frame.info);
}

const done = writer().u64(0).u64(0).frame(frame.done);
const ready = writer().frame(frame.ready);
const entry = (kind: number, path: string, target: string, size: number) =>
  writer().u8(kind).str(path).str(target).u32(0o644).u64(size).i64(0).frame(frame.entry);

const stat = (...answers: readonly Buffer[]) => answered(answers).stat(id, "/x", { follow: false });
const list = (answers: Iterable<Buffer>) =>
  answered(answers).list(id, "/", { limit: 3, after: Buffer.alloc(0) });
const down = (...answers: readonly Buffer[]) =>
  all(answered(answers).download(id, "/", { maxBytes: MiB, maxEntries: 10, compression: "none" }));

describe("what is not the toolbox's", () => {
  const impossible = {
    "nothing at all": [],
    "no frame": [Buffer.from("HTTP/1.1 200 OK\r\n\r\n")],
    "a frame of another kind": [done],
    "an unknown type of file": [info({ type: 5 })],
    "an impossible mode": [info({ mode: 0o10000 })],
    "a negative size": [info({ size: -1n })],
    "too long a target": [info({ target: "x".repeat(5_000) })],
    "an etag with a line break": [info({ etag: "a\nb" })],
    "half a frame": [info().subarray(0, 20)],
    "a payload that is cut": [writer().u32(100).frame(frame.info)],
  };
  test.each(Object.entries(impossible))("is told as such: %s", async (_what, answers) => {
    await expect(stat(...answers)).rejects.toEqual(unavailable);
  });

  test("does not become a list without end, nor one of impossible names", async () => {
    const endless = function* () {
      for (;;) yield info();
    };
    await expect(list(endless())).rejects.toEqual(unavailable);
    for (const name of ["", "x".repeat(256)])
      await expect(list([info({ name }), done])).rejects.toEqual(unavailable);
  });

  test("does not become a list of more than was asked for, or of half a file, where many come in a frame", async () => {
    const payload = info().subarray(5);
    const together = (...parts: Buffer[]) => writer().bytes(Buffer.concat(parts)).frame(frame.infos);
    expect((await list([together(payload, payload, payload), done])).files).toHaveLength(3);
    await expect(list([together(payload, payload, payload, payload), done])).rejects.toEqual(unavailable);
    await expect(list([together(payload), together(payload, payload, payload)])).rejects.toEqual(unavailable);
    await expect(list([together(payload, payload.subarray(0, 20)), done])).rejects.toEqual(unavailable);
    await expect(list([together(), done])).rejects.toEqual(unavailable);
    await expect(list([ready, done])).rejects.toEqual(unavailable);
  });

  test("is understood where it is a toolbox of an earlier release, which tells files one by one", async () => {
    const more = writer().str("b").frame(frame.more);
    const page = await list([info({ name: "a" }), info({ name: "b" }), more, done]);
    expect(page.files.map(({ path }) => path)).toEqual(["/a", "/b"]);
    expect(page.next?.toString()).toBe("b");
  });

  test("does not become an archive that leads out of where it is unpacked, or is longer than it says", async () => {
    for (const path of ["../evil", "/evil", "a/../../evil"])
      await expect(down(entry(1, path, "", 0), done)).rejects.toMatchObject({ reason: "ARCHIVE_REFUSED" });
    await expect(down(entry(4, "x", "../evil", 0), done)).rejects.toMatchObject({
      reason: "ARCHIVE_REFUSED",
    });
    const data = writer().bytes(Buffer.alloc(10)).frame(frame.data);
    await expect(down(entry(1, "x", "", 9), data, done)).rejects.toEqual(unavailable);
    await expect(down(entry(1, "x", "", 11), data, done)).rejects.toEqual(unavailable);
    await expect(down(entry(2, "x", "", 11), done)).rejects.toEqual(unavailable);
    await expect(down(entry(7, "x", "", 0), done)).rejects.toEqual(unavailable);
  });

  test("has its words shown with care", async () => {
    const error = writer().u32(2).str("open\u001b[2J").str("/x\n\u202egpj").frame(frame.error);
    const failure = (await stat(error).catch((caught: unknown) => caught)) as Error;
    expect(failure).toMatchObject({ reason: "FILE_NOT_FOUND" });
    expect(failure.message).not.toMatch(/\p{C}/u);
  });
});

describe("what does not answer", () => {
  afterEach(() => void vi.useRealTimers());

  test("is given up after 60 s, or 10 minutes where work may take long, and not while the sender takes its time", async () => {
    vi.useFakeTimers();
    const told = (call: Promise<unknown>) => {
      let how: unknown;
      call.then(
        () => (how = "done"),
        (error) => (how = error),
      );
      return () => how;
    };
    const silent = answered([], true);
    const single = told(silent.stat(id, "/x", { follow: false }));
    const tree = told(silent.remove(id, "/x", { recursive: true }));
    const slow = async function* () {
      yield Buffer.from("x");
      await new Promise((resolve) => setTimeout(resolve, 3_600_000));
    };
    const target = { path: "/x", createsOnly: false, etag: "", parents: false };
    const written = told(answered([ready], true).write(id, target, slow(), {}));
    await vi.advanceTimersByTimeAsync(59_000);
    expect(single()).toBeUndefined();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(single()).toEqual(unavailable);
    expect(tree()).toBeUndefined();
    await vi.advanceTimersByTimeAsync(600_000);
    expect(tree()).toEqual(unavailable);
    await vi.advanceTimersByTimeAsync(3_000_000);
    expect(written(), "the sender has not ended").toBeUndefined();
    await vi.advanceTimersByTimeAsync(600_000);
    expect(written()).toEqual(unavailable);
  });
});

describe("bounds", () => {
  test("a sandbox at its pids limit is told so", async () => {
    const { files, home, server } = await inside();
    execFileSync("prlimit", ["--pid", `${server.pid}`, "--nproc=1"], { uid, gid: uid });
    await expect(files.stat(id, home, { follow: false })).rejects.toMatchObject({
      reason: "PROCESS_LIMIT_REACHED",
    });
  });

  test("a caller that takes nothing has nothing held for it", async () => {
    const { files, home } = await inside();
    writeFileSync(join(home, "large"), "");
    truncateSync(join(home, "large"), 1024 ** 4);
    const before = process.memoryUsage().arrayBuffers;
    const taken = [
      files.read(id, join(home, "large"), { offset: 0n, length: 0n }),
      files.download(id, home, { maxBytes: 2 ** 50, maxEntries: 10, compression: "none" }),
    ];
    for (const one of taken) await one.next();
    await sleep(200);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * MiB);
    for (const one of taken) await one.return();
  });

  test("a sandbox that takes nothing is sent nothing more", async () => {
    const { files, home, server } = await inside();
    let sent = 0;
    const controller = new AbortController();
    const endless = async function* () {
      for (; ; sent += 1) {
        if (sent === 4) {
          const [worker] = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, "utf8").split(" ");
          process.kill(Number(worker), "SIGSTOP");
        }
        yield Buffer.alloc(MiB);
      }
    };
    const target = { path: join(home, "file"), createsOnly: false, etag: "", parents: false };
    const written = files.write(id, target, endless(), { signal: controller.signal });
    await expect.poll(() => sent).toBeGreaterThanOrEqual(4);
    await sleep(200);
    expect(sent).toBeLessThan(10);
    controller.abort(new Error("enough"));
    await expect(written).rejects.toThrow("enough");
  });

  test("40 calls at once are answered each", async () => {
    const { files, home, workers } = await inside();
    const calls = Array.from({ length: 40 }, async (_, index) => {
      const path = join(home, `${index}`);
      const content = Buffer.alloc(100_000, index);
      await files.write(id, { path, createsOnly: true, etag: "", parents: false }, pieces(content), {});
      const [, ...data] = await all(files.read(id, path, { offset: 0n, length: 0n }));
      return Buffer.concat(data as Buffer[]).equals(content);
    });
    expect(await Promise.all(calls)).toEqual(calls.map(() => true));
    await expect.poll(workers).toBe(0);
  });
});
