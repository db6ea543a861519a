// Writing: whole or not at all, one after the other, and never more than was allowed.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Files } from "../../../src/files/files.ts";
import type { WriteTarget } from "../../../src/files/write.ts";
import { id, inside, mounted, pieces, uid } from "./fixture.ts";

const refusal = (reason: string) => expect.objectContaining({ reason });
const plain = { createsOnly: false, etag: "", parents: false } as const;

function write(files: Files, path: string, content: string | Uint8Array, target: Partial<WriteTarget> = {}) {
  return files.write(id, { path, ...plain, ...target }, pieces(Buffer.from(content)), {});
}

/** A file of the user's. */
function own(path: string, content: string, mode = 0o644): void {
  writeFileSync(path, content);
  chmodSync(path, mode);
  chownSync(path, uid, uid);
}

describe("a whole file", () => {
  test("is made with 0644 or the mode given, and with directories above it if asked", async () => {
    const { files, home } = await inside();
    const made = await write(files, join(home, "file"), "hello");
    expect(made).toMatchObject({ path: join(home, "file"), type: "file", mode: 0o644, sizeBytes: 5n, uid });
    expect(made.etag).toBe((await files.stat(id, join(home, "file"), { follow: false })).etag);
    await write(files, join(home, "a/b/script"), "#!", { mode: 0o751, parents: true });
    expect(statSync(join(home, "a/b/script")).mode & 0o7777).toBe(0o751);
    expect(statSync(join(home, "a")).mode & 0o7777).toBe(0o755);
    await expect(write(files, join(home, "x/y"), "")).rejects.toEqual(refusal("FILE_NOT_FOUND"));
  });

  test("takes the place of another with its mode, and leaves other names of that one alone", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    own(path, "old", 0o640);
    linkSync(path, join(home, "other"));
    expect(await write(files, path, "new")).toMatchObject({ mode: 0o640 });
    expect([readFileSync(path, "utf8"), readFileSync(join(home, "other"), "utf8")]).toEqual(["new", "old"]);
    expect(await write(files, path, "", { mode: 0o600 })).toMatchObject({ mode: 0o600, sizeBytes: 0n });
  });

  test("goes to where links lead, also to where there is nothing yet", async () => {
    const { files, home } = await inside();
    mkdirSync(join(home, "there"));
    chownSync(join(home, "there"), uid, uid);
    own(join(home, "there/file"), "old");
    symlinkSync("second", join(home, "first"));
    symlinkSync("there/file", join(home, "second"));
    symlinkSync(join(home, "there/new"), join(home, "dangling"));
    await write(files, join(home, "first"), "new");
    await write(files, join(home, "dangling"), "made");
    expect(readFileSync(join(home, "there/file"), "utf8")).toBe("new");
    expect(readFileSync(join(home, "there/new"), "utf8")).toBe("made");
    expect([readlinkSync(join(home, "first")), readlinkSync(join(home, "second"))]).toEqual([
      "second",
      "there/file",
    ]);
    symlinkSync("loop", join(home, "loop"));
    await expect(write(files, join(home, "loop"), "")).rejects.toEqual(refusal("INVALID_FIELD"));
  });

  test("is seen by a reader as the old or the new one, never as less", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    const [a, b] = [Buffer.alloc(1_500_000, "a"), Buffer.alloc(1_000_000, "b")];
    await write(files, path, a);
    let isOver = false;
    const seen = new Set<string>();
    const reader = (async () => {
      while (!isOver) {
        const found = readFileSync(path);
        seen.add(found.equals(a) ? "a" : found.equals(b) ? "b" : `half: ${found.length}`);
        await sleep(0);
      }
    })();
    for (let round = 0; round < 10; round += 1) await write(files, path, round % 2 === 0 ? b : a);
    isOver = true;
    await reader;
    expect([...seen].sort()).toEqual(["a", "b"]);
  });

  test("with create_only is made once, by one of 20 at the same time, and not through a link", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    const made = await Promise.allSettled(
      Array.from({ length: 20 }, (_, index) => write(files, path, `${index}`, { createsOnly: true })),
    );
    expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const one of made)
      if (one.status === "rejected") expect(one.reason).toEqual(refusal("FILE_ALREADY_EXISTS"));
    symlinkSync("nowhere", join(home, "link"));
    await expect(write(files, join(home, "link"), "", { createsOnly: true })).rejects.toEqual(
      refusal("FILE_ALREADY_EXISTS"),
    );
    expect(readdirSync(home).sort()).toEqual(["file", "link"]);
  });

  test("with an etag is replaced by one of 20 at the same time", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    const { etag } = await write(files, path, "first");
    const written = await Promise.allSettled(
      Array.from({ length: 20 }, (_, index) => write(files, path, `${index}`, { etag })),
    );
    const winner = written.findIndex(({ status }) => status === "fulfilled");
    expect(written.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const one of written)
      if (one.status === "rejected") expect(one.reason).toEqual(refusal("FILE_CHANGED"));
    expect(readFileSync(path, "utf8")).toBe(`${winner}`);
    await expect(write(files, join(home, "none"), "", { etag })).rejects.toEqual(refusal("FILE_CHANGED"));
  });

  test("by four that compare and set 10 times each loses none of their writes", async () => {
    const { files, home } = await inside();
    const path = join(home, "counter");
    await write(files, path, "0");
    const one = async () => {
      for (;;) {
        const { etag } = await files.stat(id, path, { follow: false });
        const value = Number(readFileSync(path, "utf8"));
        try {
          await write(files, path, `${value + 1}`, { etag });
          return;
        } catch (error) {
          expect(error).toEqual(refusal("FILE_CHANGED"));
        }
      }
    };
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        for (let round = 0; round < 10; round += 1) await one();
      }),
    );
    expect(readFileSync(path, "utf8")).toBe("40");
  });

  test("of another size than announced is refused, and the old one stays", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    own(path, "old");
    for (const sizeBytes of [4n, 6n])
      await expect(write(files, path, "12345", { sizeBytes })).rejects.toEqual(refusal("INVALID_FIELD"));
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(await write(files, path, "12345", { sizeBytes: 5n })).toMatchObject({ sizeBytes: 5n });
    expect(readdirSync(home)).toEqual(["file"]);
  });

  test("that its sender gives up half-way leaves the old one and nothing else", async () => {
    const { files, home, workers } = await inside();
    const path = join(home, "file");
    own(path, "old");
    const failing = async function* () {
      yield Buffer.alloc(1_000_000);
      throw new Error("the sender is gone");
    };
    await expect(files.write(id, { path, ...plain }, failing(), {})).rejects.toThrow("the sender is gone");
    const controller = new AbortController();
    const stuck = async function* () {
      yield Buffer.alloc(1_000_000);
      controller.abort(new Error("the caller is gone"));
      await sleep(60_000, undefined, { ref: false });
    };
    const { signal } = controller;
    await expect(files.write(id, { path, ...plain }, stuck(), { signal })).rejects.toThrow(
      "the caller is gone",
    );
    await expect.poll(workers).toBe(0);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(home)).toEqual(["file"]);
  });

  test("of which the worker is killed half-way leaves the old one and nothing else", async () => {
    const { files, home, server } = await inside();
    const path = join(home, "file");
    own(path, "old");
    const killing = async function* () {
      yield Buffer.alloc(1_000_000);
      execFileSync("pkill", ["-KILL", "-P", `${server.pid}`]);
      yield Buffer.alloc(1);
    };
    await expect(files.write(id, { path, ...plain }, killing(), {})).rejects.toEqual(
      refusal("TOOLBOX_UNAVAILABLE"),
    );
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(home)).toEqual(["file"]);
  });

  test("that does not fit on the disk is refused while it is being sent, and the old one stays", async () => {
    const { files, home } = await inside();
    const small = join(home, "small");
    mounted(small, "size=2m,mode=1777");
    own(join(small, "file"), "old");
    let sent = 0;
    const endless = async function* () {
      for (; sent < 1_000; sent += 1) yield Buffer.alloc(262_144);
    };
    await expect(files.write(id, { path: join(small, "file"), ...plain }, endless(), {})).rejects.toEqual(
      refusal("FILE_NO_SPACE"),
    );
    expect(sent).toBeLessThan(100);
    expect(readFileSync(join(small, "file"), "utf8")).toBe("old");
    expect(readdirSync(small)).toEqual(["file"]);
  });

  test("is refused where there is a directory, a device, a FIFO or a read-only file system, and where the user may not write", async () => {
    const { files, home } = await inside();
    execFileSync("mkfifo", ["-m", "666", join(home, "fifo")]);
    mounted(join(home, "fixed"), "ro,size=1m,mode=1777");
    for (const path of [home, join(home, "fifo"), "/dev/null", "/"])
      await expect(write(files, path, "")).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(write(files, join(home, "fixed/x"), "")).rejects.toEqual(refusal("FILE_READ_ONLY"));
    await expect(write(files, "/etc/x", "")).rejects.toEqual(refusal("FILE_NOT_ALLOWED"));
    expect(lstatSync(join(home, "fifo")).isFIFO()).toBe(true);
  });
});

describe("at an offset", () => {
  test("a file that is there is written in place, and a gap reads as zeros", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    own(path, "0123456789");
    const { ino } = statSync(path);
    await write(files, path, "abc", { offset: 2n });
    await write(files, path, "z", { offset: 12n, mode: 0o600 });
    expect(readFileSync(path, "utf8")).toBe("01abc56789\0\0z");
    expect(statSync(path)).toMatchObject({ ino });
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("there must be a file, a regular one, and one offset that it can have", async () => {
    const { files, home } = await inside();
    execFileSync("mkfifo", ["-m", "666", join(home, "fifo")]);
    own(join(home, "file"), "");
    const at = (name: string, offset = 0n) => write(files, join(home, name), "x", { offset });
    await expect(at("none")).rejects.toEqual(refusal("FILE_NOT_FOUND"));
    await expect(at("fifo")).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(at(".")).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(at("file", 2n ** 63n - 1n)).rejects.toEqual(refusal("FILE_NO_SPACE"));
    await expect(write(files, "/dev/null", "x", { offset: 0n })).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    expect(existsSync(join(home, "none"))).toBe(false);
  });

  test("of 20 with the same etag one writes", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    const { etag } = await write(files, path, "0123456789");
    const written = await Promise.allSettled(
      Array.from({ length: 20 }, (_, index) => write(files, path, `${index % 10}`, { offset: 3n, etag })),
    );
    expect(written.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const one of written)
      if (one.status === "rejected") expect(one.reason).toEqual(refusal("FILE_CHANGED"));
  });

  test("cannot be said together with create_only, nor create_only with an etag", async () => {
    const { files, home } = await inside();
    const path = join(home, "file");
    await expect(write(files, path, "", { offset: 0n, createsOnly: true })).rejects.toEqual(
      refusal("INVALID_FIELD"),
    );
    await expect(write(files, path, "", { etag: "x", createsOnly: true })).rejects.toEqual(
      refusal("INVALID_FIELD"),
    );
  });
});
