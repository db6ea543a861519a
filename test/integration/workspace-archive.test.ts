// Archives of workspaces as they are really made and unpacked: by a program of its own, as another user. Needs root.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { zstdCompressSync } from "node:zlib";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  type ExportOptions,
  exportArchive,
  importArchive,
  type PackReport,
} from "../../src/workspace/archive/archive.ts";

const uid = 23_456;
const MiB = 1024 * 1024;
const modules = join(import.meta.dirname, "../../src/workspace/archive/archive.ts");

/** A workspace as the daemon makes it: its content is its tenant's, what is around it is root's. */
function workspace(): string {
  const around = mkdtempSync(join(tmpdir(), "sandboxd-archive-"));
  onTestFinished(() => rmSync(around, { recursive: true, force: true }));
  chmodSync(around, 0o711);
  const directory = join(around, "content");
  mkdirSync(directory, 0o700);
  chownSync(directory, uid, uid);
  return directory;
}

function own(directory: string): void {
  execFileSync("chown", ["-R", `${uid}:${uid}`, directory]);
}

async function exported(options: Omit<ExportOptions, "uid" | "onReport">) {
  const chunks: Uint8Array[] = [];
  let report: PackReport | undefined;
  const onReport = (told: PackReport) => {
    report = told;
  };
  for await (const chunk of exportArchive({ uid, onReport, ...options })) chunks.push(chunk);
  return { bytes: Buffer.concat(chunks), report, longest: Math.max(...chunks.map(({ length }) => length)) };
}

const limits = { uid, maxBytes: 1024 * MiB, maxEntries: 100_000 };

async function* inPieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += 65_536) yield bytes.subarray(start, start + 65_536);
}

/** Programs that work on a directory, by whomever they were started. */
function programsOn(directory: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const args = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return (
          args.some((arg) => /archive-program\.[jt]s$/.test(arg)) &&
          args.some((arg) => arg.includes(`"${directory}"`))
        );
      } catch {
        return false;
      }
    });
}

async function programOn(directory: string): Promise<number> {
  return await vi.waitFor(() => {
    const [pid] = programsOn(directory);
    if (pid === undefined) throw new Error("it has not started");
    return pid;
  }, 10_000);
}

function statusOf(pid: number, key: string): string {
  return (
    new RegExp(`^${key}:[ \\t]*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]?.trim() ??
    ""
  );
}

/** Random, so that compression makes it no smaller. */
function fill(directory: string, name: string, mebibytes: number): void {
  execFileSync("dd", [
    "if=/dev/urandom",
    `of=${join(directory, name)}`,
    "bs=1M",
    `count=${mebibytes}`,
    "status=none",
  ]);
  own(directory);
}

/** Begins, and then waits for ever. */
async function* stalled(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
  await new Promise(() => {});
}

/** The beginning of an archive of one file that is all there would be. */
async function beginning(): Promise<Uint8Array> {
  const directory = workspace();
  fill(directory, "file", 1);
  const { bytes } = await exported({ directory });
  return bytes.subarray(0, bytes.length / 2);
}

describe.skipIf(process.getuid?.() !== 0)("archives of workspaces", () => {
  test("are made and unpacked as the tenant's user, in pieces of at most 64 KiB", async () => {
    const [from, to] = [workspace(), workspace()];
    mkdirSync(join(from, "shut"));
    writeFileSync(join(from, "shut", "x"), "");
    writeFileSync(join(from, "secret"), "x");
    writeFileSync(join(from, "file"), randomBytes(300_000), { mode: 0o640 });
    symlinkSync("/etc/shadow", join(from, "link"));
    own(from);
    chmodSync(join(from, "secret"), 0);
    chmodSync(join(from, "shut"), 0);
    // a user other than root has no right to this: it is read as nobody better
    writeFileSync(join(from, "root's"), "x", { mode: 0o600 });
    const { bytes, report, longest } = await exported({ directory: from });
    expect(report).toMatchObject({ entries: 3, unreadable: 3, special: 0 });
    expect(longest).toBeLessThanOrEqual(65_536);
    expect(await importArchive({ ...limits, directory: to, chunks: inPieces(bytes) })).toEqual({
      bytes: 300_000,
      entries: 3,
    });
    expect(readdirSync(to).sort()).toEqual(["file", "link", "shut"]);
    for (const name of readdirSync(to)) expect(lstatSync(join(to, name))).toMatchObject({ uid, gid: uid });
    expect(lstatSync(join(to, "file")).mode & 0o7777).toBe(0o640);
  });

  test("are worked on without any of root's powers, and after everybody else", async () => {
    const directory = workspace();
    const controller = new AbortController();
    const done = importArchive({
      ...limits,
      directory,
      chunks: stalled(await beginning()),
      signal: controller.signal,
    });
    done.catch(() => {});
    const pid = await programOn(directory);
    await vi.waitFor(() => expect(existsSync(join(directory, "file"))).toBe(true), 5000);
    expect(statusOf(pid, "Uid")).toBe(Array(4).fill(uid).join("\t"));
    expect(statusOf(pid, "Gid")).toBe(Array(4).fill(uid).join("\t"));
    expect(statusOf(pid, "Groups")).toBe("");
    expect([statusOf(pid, "CapPrm"), statusOf(pid, "CapEff")]).toEqual(["0".repeat(16), "0".repeat(16)]);
    expect(execFileSync("ps", ["-o", "ni=", "-p", String(pid)], { encoding: "utf8" }).trim()).toBe("10");
    controller.abort();
    await expect(done).rejects.toThrow("aborted");
  });

  test("of 2,000 files come back", async () => {
    const [from, to] = [workspace(), workspace()];
    for (let index = 0; index < 2_000; index += 1) {
      if (index % 100 === 0) mkdirSync(join(from, `d${index}`));
      writeFileSync(join(from, `d${index - (index % 100)}`, `file-${index}`), `content ${index}`);
    }
    own(from);
    const { bytes } = await exported({ directory: from });
    const { entries } = await importArchive({ ...limits, directory: to, chunks: inPieces(bytes) });
    expect(entries).toBe(2_020);
    execFileSync("diff", ["-r", from, to]);
  });

  test("of 64 MB need little memory, here and there", async () => {
    const [from, to] = [workspace(), workspace()];
    fill(from, "large", 64);
    const before = process.memoryUsage().rss;
    let most = 0;
    let childMost = 0;
    const watched = async function* () {
      for await (const chunk of exportArchive({ uid, directory: from })) {
        most = Math.max(most, process.memoryUsage().rss);
        yield chunk;
      }
    };
    const timer = setInterval(() => {
      for (const pid of [...programsOn(from), ...programsOn(to)])
        childMost = Math.max(childMost, Number.parseInt(statusOf(pid, "VmHWM"), 10) || 0);
    }, 100);
    const startMs = performance.now();
    await importArchive({ ...limits, directory: to, chunks: watched() });
    const seconds = (performance.now() - startMs) / 1000;
    clearInterval(timer);
    console.log(
      `archive: ${Math.round(64 / seconds)} MiB/s both ways, +${Math.round((most - before) / MiB)} MiB here, ${Math.round(childMost / 1024)} MiB there`,
    );
    execFileSync("cmp", [join(from, "large"), join(to, "large")]);
    expect(most - before).toBeLessThan(96 * MiB);
    expect(childMost / 1024).toBeLessThan(200);
  });

  test("are made no faster than they are read", async () => {
    const directory = workspace();
    fill(directory, "large", 64);
    const chunks = exportArchive({ uid, directory });
    await chunks.next();
    const pid = await programOn(directory);
    const readSoFar = () => Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
    await sleep(500);
    const first = readSoFar();
    await sleep(500);
    expect(readSoFar()).toBe(first);
    expect(first).toBeLessThan(8 * MiB);
    await chunks.return();
  });

  test("are no longer made when nobody takes them, or wants them", async () => {
    const directory = workspace();
    fill(directory, "large", 16);
    for await (const chunk of exportArchive({ uid, directory })) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(programsOn(directory)).toEqual([]);
    const controller = new AbortController();
    const chunks = exportArchive({ uid, directory, signal: controller.signal });
    await chunks.next();
    controller.abort(new Error("no longer wanted"));
    await vi.waitFor(() => expect(programsOn(directory)).toEqual([]), 1000);
    await expect(
      (async () => {
        for await (const _ of chunks);
      })(),
    ).rejects.toThrow("no longer wanted");
  });

  test("are not worked on once who asked for it is gone", async () => {
    const [from, to] = [workspace(), workspace()];
    fill(from, "large", 16);
    const script = `import { exportArchive, importArchive } from ${JSON.stringify(modules)};
      const [from, to] = ${JSON.stringify([from, to])};
      const chunks = exportArchive({ uid: ${uid}, directory: from });
      await chunks.next();
      importArchive({ ...${JSON.stringify(limits)}, directory: to, chunks: (async function* () { await new Promise(() => {}) })() });
      setInterval(() => {}, 1000);`;
    const caller = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "ignore" });
    try {
      await Promise.all([programOn(from), programOn(to)]);
      await sleep(500);
    } finally {
      caller.kill("SIGKILL");
      await once(caller, "close");
    }
    await vi.waitFor(() => expect([...programsOn(from), ...programsOn(to)]).toEqual([]), 2000);
  });

  test("that are refused are refused at once, though the sender sends no more and does not end", async () => {
    const directory = workspace();
    const chunks = stalled(Buffer.alloc(1024, "no archive"));
    await expect(importArchive({ ...limits, directory, chunks })).rejects.toMatchObject({
      reason: "ARCHIVE_REFUSED",
    });
    expect(programsOn(directory)).toEqual([]);
  });

  test("that end half-way are errors, and what was unpacked stays", async () => {
    const directory = workspace();
    const chunks = inPieces(await beginning());
    await expect(importArchive({ ...limits, directory, chunks })).rejects.toMatchObject({
      reason: "ARCHIVE_REFUSED",
      message: "the archive is cut: it ends before its end",
      details: { hint: "what was unpacked stays; send it again, whole" },
    });
    expect(lstatSync(join(directory, "file")).size).toBeGreaterThan(0);
  });

  test("whose sender fails end with that failure", async () => {
    const directory = workspace();
    const start = await beginning();
    const chunks = (async function* () {
      yield start;
      throw new Error("the sender is gone");
    })();
    await expect(importArchive({ ...limits, directory, chunks })).rejects.toThrow("the sender is gone");
    expect(programsOn(directory)).toEqual([]);
  });

  test("whose program is killed end with an error that names the signal", async () => {
    const directory = workspace();
    const done = importArchive({ ...limits, directory, chunks: stalled(Buffer.alloc(100)) });
    done.catch(() => {});
    process.kill(await programOn(directory), "SIGKILL");
    await expect(done).rejects.toMatchObject({
      reason: "INTERNAL",
      details: { metadata: { signal: "SIGKILL" } },
    });
  });

  test("that do not fit say that the workspace is full", async () => {
    const directory = workspace();
    execFileSync("mount", [
      "-t",
      "tmpfs",
      "-o",
      `size=1m,mode=700,uid=${uid},gid=${uid}`,
      "tmpfs",
      directory,
    ]);
    onTestFinished(() => void execFileSync("umount", [directory]));
    const from = workspace();
    fill(from, "large", 2);
    const { bytes } = await exported({ directory: from });
    await expect(importArchive({ ...limits, directory, chunks: inPieces(bytes) })).rejects.toMatchObject({
      reason: "ARCHIVE_TOO_LARGE",
      message: "the workspace is full (ENOSPC)",
    });
  });

  test("that are small and unpack to something endless end at the limit", async () => {
    const directory = workspace();
    const frame = zstdCompressSync(Buffer.alloc(64 * MiB));
    const chunks = (async function* () {
      for (;;) yield frame;
    })();
    const done = importArchive({ ...limits, maxBytes: 256 * MiB, directory, chunks });
    done.catch(() => {});
    const pid = await programOn(directory);
    let childMost = 0;
    const timer = setInterval(() => {
      if (programsOn(directory).length > 0)
        childMost = Math.max(childMost, Number.parseInt(statusOf(pid, "VmHWM"), 10) || 0);
    }, 50);
    await expect(done).rejects.toMatchObject({ reason: "ARCHIVE_TOO_LARGE" });
    clearInterval(timer);
    expect(childMost / 1024).toBeLessThan(200);
  });

  test("never hold a byte from outside, whatever is swapped while they are made", async () => {
    const directory = workspace();
    const outside = join(directory, "..", "outside");
    mkdirSync(outside, 0o755);
    writeFileSync(join(outside, "file"), "SECRET".repeat(1000));
    for (const [kind, make] of [
      ["d", () => mkdirSync(join(directory, "d0"))],
      ["f", () => {}],
    ] as const) {
      make();
      mkdirSync(join(directory, `${kind}-real`));
      writeFileSync(join(directory, `${kind}-real`, "file"), "mine".repeat(1000));
    }
    symlinkSync(outside, join(directory, "d-link"));
    symlinkSync(join(outside, "file"), join(directory, "f-link"));
    writeFileSync(join(directory, "f-file"), "mine");
    own(directory);
    const script = `const { renameSync } = require("node:fs");
      process.chdir(${JSON.stringify(directory)});
      for (;;) {
        renameSync("d-real", "x"); renameSync("d-link", "d-real"); renameSync("x", "d-link");
        renameSync("f-file", "x"); renameSync("f-link", "f-file"); renameSync("x", "f-link");
      }`;
    const swapper = spawn(process.execPath, ["--eval", script], { stdio: "ignore" });
    try {
      for (let round = 0; round < 12; round += 1) {
        const { bytes } = await exported({ directory });
        const tar = execFileSync("zstd", ["-dc"], { input: bytes, maxBuffer: 64 * MiB });
        expect(tar.includes("SECRET")).toBe(false);
      }
    } finally {
      swapper.kill("SIGKILL");
      await once(swapper, "close");
    }
  });

  test.skipIf(!existsSync("/usr/bin/zstd"))(
    "are such as tar reads, and tar's are read, in each of its formats",
    async () => {
      const directory = workspace();
      mkdirSync(join(directory, "é\n d"));
      writeFileSync(join(directory, "é\n d", "n".repeat(200)), "text", { mode: 0o755 });
      writeFileSync(Buffer.from(join(directory, "caf\xe9"), "latin1"), "x".repeat(5000));
      symlinkSync("t".repeat(300), join(directory, "link"));
      own(directory);
      const file = join(directory, "..", "archive.tar.zst");
      const [byTar] = [join(directory, "..", "by-tar")];
      writeFileSync(file, (await exported({ directory })).bytes);
      mkdirSync(byTar);
      execFileSync("tar", ["--zstd", "-xpf", file, "-C", byTar]);
      execFileSync("diff", ["-r", "--no-dereference", directory, byTar]);
      expect(
        execFileSync("tar", ["--zstd", "-tf", file], { encoding: "utf8" }).trim().split("\n"),
      ).toHaveLength(4);
      for (const format of ["gnu", "pax"]) {
        const to = workspace();
        execFileSync("tar", ["--zstd", `--format=${format}`, "-cf", file, "-C", directory, "."]);
        await importArchive({ ...limits, directory: to, chunks: inPieces(readFileSync(file)) });
        execFileSync("diff", ["-r", "--no-dereference", directory, to]);
      }
    },
  );
});
