// One step each: what is asked of the kernel inside, and what its answer means.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { FileInfo } from "../../../src/files/info.ts";
import { frame, request } from "../../../src/toolbox/protocol.ts";
import { all, id, inside, mounted, uid } from "./fixture.ts";

const refusal = (reason: string, metadata?: object) =>
  expect.objectContaining({
    reason,
    ...(metadata === undefined
      ? {}
      : { details: expect.objectContaining({ metadata: expect.objectContaining(metadata) }) }),
  });

const field = (name: string) =>
  expect.objectContaining({
    reason: "INVALID_FIELD",
    details: expect.objectContaining({ fields: [expect.objectContaining({ field: name })] }),
  });

async function content(files: AsyncIterable<FileInfo | Buffer>): Promise<Buffer> {
  const [, ...data] = await all(files);
  return Buffer.concat(data as Buffer[]);
}

describe("stat", () => {
  test("tells type, mode, size, times, owner and target, and follows a link only if asked", async () => {
    const { files, home } = await inside();
    const file = join(home, "file");
    writeFileSync(file, "12345");
    chownSync(file, uid, uid);
    chmodSync(file, 0o4750);
    symlinkSync("file", join(home, "link"));
    const found = statSync(file, { bigint: true });
    const told = await files.stat(id, file, { follow: false });
    expect(told).toMatchObject({
      path: file,
      type: "file",
      mode: 0o4750,
      sizeBytes: 5n,
      uid,
      gid: uid,
      target: "",
    });
    expect(told.mtimeNs).toBe(found.mtimeNs);
    expect(await files.stat(id, join(home, "link"), { follow: false })).toMatchObject({
      type: "symlink",
      target: "file",
      sizeBytes: 4n,
    });
    expect(await files.stat(id, join(home, "link"), { follow: true })).toMatchObject({
      path: join(home, "link"),
      type: "file",
      etag: told.etag,
    });
    expect(await files.stat(id, "/dev/null", { follow: false })).toMatchObject({ type: "other" });
  });

  test("gives an etag that changes with content, mode and identity, and with nothing else", async () => {
    const { files, home } = await inside();
    const file = join(home, "file");
    writeFileSync(file, "12345");
    const etag = async () => (await files.stat(id, file, { follow: false })).etag;
    const first = await etag();
    readFileSync(file);
    expect(await etag()).toBe(first);
    chmodSync(file, 0o600);
    const second = await etag();
    expect(second).not.toBe(first);
    writeFileSync(file, "54321");
    expect(await etag()).not.toBe(second);
  });

  test("says why not: nothing there, not allowed, through a file, too many links, too long a name", async () => {
    const { files, home } = await inside();
    writeFileSync(join(home, "file"), "");
    mkdirSync(join(home, "closed"), 0o700);
    symlinkSync("loop", join(home, "loop"));
    const stat = (path: string) => files.stat(id, path, { follow: true });
    await expect(stat(join(home, "none"))).rejects.toEqual(
      refusal("FILE_NOT_FOUND", { errno: "ENOENT", path: join(home, "none") }),
    );
    await expect(stat(join(home, "closed/x"))).rejects.toEqual(
      refusal("FILE_NOT_ALLOWED", { errno: "EACCES" }),
    );
    await expect(stat(join(home, "file/x"))).rejects.toEqual(
      refusal("FILE_WRONG_TYPE", { errno: "ENOTDIR" }),
    );
    await expect(stat(join(home, "loop"))).rejects.toEqual(field("path"));
    await expect(stat(join(home, "x".repeat(256)))).rejects.toEqual(field("path"));
  });

  test("takes absolute paths of at most 4,096 bytes without NUL", async () => {
    const { files } = await inside();
    for (const path of ["", "x", "/a\0b", `/${"ä".repeat(2048)}`])
      await expect(files.stat(id, path, { follow: false })).rejects.toEqual(field("path"));
    await expect(files.move(id, "/a", "b", { noReplace: false })).rejects.toEqual(field("new_path"));
  });
});

describe("list", () => {
  test("pages through 1,500 names in the order of their bytes, each once", async () => {
    const { files, home } = await inside();
    const names = Array.from({ length: 1_500 }, (_, index) => `${(index * 7919) % 1_500}`);
    for (const name of names) writeFileSync(join(home, name), "");
    const told: string[] = [];
    let pages = 0;
    for (let after: Buffer | undefined = Buffer.alloc(0); after !== undefined; pages += 1) {
      const page = await files.list(id, home, { limit: 600, after });
      told.push(...page.files.map(({ path }) => path));
      after = page.next;
    }
    expect(told).toEqual(names.sort().map((name) => join(home, name)));
    expect(pages).toBe(3);
  });

  test("is told one by one to a daemon of an earlier release, and together to one that asks for it", async () => {
    const { home, link } = await inside();
    for (const name of ["a", "b", "c"]) writeFileSync(join(home, name), "");
    const typesOf = async (asked: Buffer) => {
      const connection = await link.open(id);
      await connection.send(asked);
      const types: number[] = [];
      for (let next = await connection.receive(); next !== undefined; next = await connection.receive())
        types.push(next.type);
      return types;
    };
    const asked = () => request().str(home).u32(10).str("");
    const { info, infos, done } = frame;
    expect(await typesOf(asked().frame(frame.listDirectory))).toEqual([info, info, info, done]);
    expect(await typesOf(asked().u8(1).frame(frame.listDirectory))).toEqual([infos, done]);
  });

  test("has no next page after a page that is exactly full", async () => {
    const { files, home } = await inside();
    for (const name of ["a", "b"]) writeFileSync(join(home, name), "");
    expect((await files.list(id, home, { limit: 2, after: Buffer.alloc(0) })).next).toBeUndefined();
    expect((await files.list(id, home, { limit: 1, after: Buffer.alloc(0) })).next).toEqual(Buffer.from("a"));
    expect((await files.list(id, home, { limit: 1, after: Buffer.from("a") })).next).toBeUndefined();
    expect((await files.list(id, home, { limit: 1, after: Buffer.from("b") })).files).toEqual([]);
  });

  test("shows a name that is no UTF-8 with replacement characters, and goes on behind it by its bytes", async () => {
    const { files, home } = await inside();
    for (const name of ["a\x80", "a\x81", "b"]) writeFileSync(Buffer.from(join(home, name), "latin1"), "");
    const first = await files.list(id, home, { limit: 1, after: Buffer.alloc(0) });
    expect(first.files.map(({ path }) => path)).toEqual([join(home, "a\ufffd")]);
    const second = await files.list(id, home, { limit: 2, after: first.next ?? Buffer.alloc(0) });
    expect(second.files.map(({ path }) => path)).toEqual([join(home, "a\ufffd"), join(home, "b")]);
  });

  test("ends a page at 2 MiB, and the next goes on behind it", async () => {
    const { files, home } = await inside();
    const target = "x".repeat(4_000);
    for (let index = 1_000; index < 1_700; index += 1) symlinkSync(target, join(home, `${index}`));
    const first = await files.list(id, home, { limit: 1_000, after: Buffer.alloc(0) });
    expect(first.files.length).toBeLessThan(600);
    const second = await files.list(id, home, { limit: 1_000, after: first.next ?? Buffer.alloc(0) });
    expect(first.files.length + second.files.length).toBe(700);
  });

  test("refuses what is no directory, or may not be read", async () => {
    const { files, home } = await inside();
    writeFileSync(join(home, "file"), "");
    mkdirSync(join(home, "closed"), 0o711);
    const list = (name: string) => files.list(id, join(home, name), { limit: 10, after: Buffer.alloc(0) });
    await expect(list("file")).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(list("closed")).rejects.toEqual(refusal("FILE_NOT_ALLOWED"));
    await expect(list("none")).rejects.toEqual(refusal("FILE_NOT_FOUND"));
  });
});

describe("make a directory", () => {
  test("with the mode that was asked for, and with those above it if asked", async () => {
    const { files, home } = await inside();
    const made = await files.makeDirectory(id, join(home, "a/b/c"), { mode: 0o1777, parents: true });
    expect(made).toMatchObject({ type: "directory", mode: 0o1777, uid });
    expect(statSync(join(home, "a")).mode & 0o7777).toBe(0o755);
    await files.makeDirectory(id, join(home, "a/b/c/"), { mode: 0o700, parents: true });
    expect(statSync(join(home, "a/b/c")).mode & 0o7777).toBe(0o1777);
  });

  test("refuses what is there already, and what has nothing above it", async () => {
    const { files, home } = await inside();
    writeFileSync(join(home, "file"), "");
    const make = (name: string, parents: boolean) =>
      files.makeDirectory(id, join(home, name), { mode: 0o755, parents });
    await make("a", false);
    await expect(make("a", false)).rejects.toEqual(refusal("FILE_ALREADY_EXISTS"));
    await expect(make("file", true)).rejects.toEqual(refusal("FILE_ALREADY_EXISTS"));
    await expect(make("file/x", true)).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(make("x/y", false)).rejects.toEqual(refusal("FILE_NOT_FOUND"));
    await expect(files.makeDirectory(id, "/proc/x/y", { mode: 0o755, parents: true })).rejects.toEqual(
      refusal("FILE_NOT_FOUND"),
    );
    await expect(files.makeDirectory(id, "/etc/x", { mode: 0o755, parents: true })).rejects.toEqual(
      refusal("FILE_NOT_ALLOWED"),
    );
  });
});

describe("move", () => {
  test("replaces as rename does, or refuses to if asked", async () => {
    const { files, home } = await inside();
    const at = (name: string) => join(home, name);
    writeFileSync(at("a"), "a");
    writeFileSync(at("b"), "b");
    await expect(files.move(id, at("a"), at("b"), { noReplace: true })).rejects.toEqual(
      refusal("FILE_ALREADY_EXISTS"),
    );
    expect(await files.move(id, at("a"), at("b"), { noReplace: false })).toMatchObject({
      path: at("b"),
      type: "file",
    });
    expect(readFileSync(at("b"), "utf8")).toBe("a");
    expect(existsSync(at("a"))).toBe(false);
  });

  test("refuses a file onto a directory, a directory onto one with something in it, into itself, and to another file system", async () => {
    const { files, home } = await inside();
    const at = (name: string) => join(home, name);
    writeFileSync(at("file"), "");
    for (const name of ["empty", "full", "full/x"]) {
      mkdirSync(at(name));
      chownSync(at(name), uid, uid);
    }
    const move = (from: string, to: string) => files.move(id, from, to, { noReplace: false });
    await expect(move(at("file"), at("empty"))).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(move(at("empty"), at("full"))).rejects.toEqual(refusal("DIRECTORY_NOT_EMPTY"));
    await expect(move(at("full"), at("full/x/y"))).rejects.toEqual(field("new_path"));
    await expect(move(at("file"), `/dev/shm/sandboxd-${process.pid}`)).rejects.toEqual(
      refusal("FILE_WRONG_TYPE", { errno: "EXDEV" }),
    );
    await expect(move(at("none"), at("x"))).rejects.toEqual(refusal("FILE_NOT_FOUND", { path: at("none") }));
    await expect(move(at("file"), at("x/y"))).rejects.toEqual(refusal("FILE_NOT_FOUND", { path: at("x/y") }));
  });
});

describe("remove", () => {
  const make = (home: string, script: string) =>
    execFileSync("sh", ["-ec", script], { cwd: home, uid, gid: uid, stdio: "pipe" });

  test("takes a file, a link and an empty directory; what is gone is a success", async () => {
    const { files, home } = await inside();
    make(home, "echo x >file; ln -s file link; ln -s nowhere dangling; mkdir empty");
    for (const name of ["link", "dangling", "file", "empty", "none", "none/none"])
      await files.remove(id, join(home, name), { recursive: false });
    expect(await files.list(id, home, { limit: 9, after: Buffer.alloc(0) })).toMatchObject({ files: [] });
  });

  test("takes a tree only if asked, and never follows a link out of it", async () => {
    const { files, home } = await inside();
    make(
      home,
      "mkdir -p tree/a/b outside; echo x >outside/file; ln -s ../outside tree/link; ln -s ../../outside tree/a/link; echo >tree/a/b/c",
    );
    const tree = join(home, "tree");
    await expect(files.remove(id, tree, { recursive: false })).rejects.toEqual(
      refusal("DIRECTORY_NOT_EMPTY"),
    );
    await files.remove(id, tree, { recursive: true });
    expect(existsSync(tree)).toBe(false);
    expect(readFileSync(join(home, "outside/file"), "utf8")).toBe("x\n");
  });

  test("takes a tree 3,000 directories deep, in which a path would be too long", async () => {
    const { files, home } = await inside();
    // chains of 1,000, each hung to the end of the next
    const chain = "d/".repeat(1_000);
    make(
      home,
      `for i in 1 2 3; do mkdir -p $i/${chain}; done; echo x >3/${chain}file; for i in 2 1; do mv $((i + 1)) $i/${chain}; done; mv 1 deep`,
    );
    await files.remove(id, join(home, "deep"), { recursive: true });
    expect(existsSync(join(home, "deep"))).toBe(false);
  });

  test("does not enter another file system, and says so", async () => {
    const { files, home } = await inside();
    make(home, "mkdir tree; echo x >tree/before");
    mounted(join(home, "tree/mounted"), "size=1m,mode=1777");
    writeFileSync(join(home, "tree/mounted/file"), "x");
    await expect(files.remove(id, join(home, "tree"), { recursive: true })).rejects.toEqual(
      refusal("FILE_WRONG_TYPE", { errno: "EBUSY", path: join(home, "tree/mounted") }),
    );
    expect(readFileSync(join(home, "tree/mounted/file"), "utf8")).toBe("x");
  });

  test("refuses the root directory, however it is written, and what the user may not", async () => {
    const { files } = await inside();
    for (const path of ["/", "//", "/.", "/../.."])
      await expect(files.remove(id, path, { recursive: true })).rejects.toEqual(field("path"));
    await expect(files.remove(id, "/etc/passwd", { recursive: false })).rejects.toEqual(
      refusal("FILE_NOT_ALLOWED"),
    );
  });
});

describe("read", () => {
  test("gives the file as it was opened, then exactly the bytes asked for", async () => {
    const { files, home } = await inside();
    const bytes = Buffer.from(Array.from({ length: 700_000 }, (_, index) => index % 251));
    const path = join(home, "file");
    writeFileSync(path, bytes);
    const read = (offset: number, length: number) =>
      content(files.read(id, path, { offset: BigInt(offset), length: BigInt(length) }));
    const [first, ...rest] = await all(files.read(id, path, { offset: 0n, length: 0n }));
    expect(first).toMatchObject({ path, type: "file", sizeBytes: 700_000n });
    expect(Math.max(...rest.map((piece) => (piece as Buffer).length))).toBeLessThanOrEqual(262_144);
    expect((await read(0, 0)).equals(bytes)).toBe(true);
    expect((await read(1, 699_998)).equals(bytes.subarray(1, 699_999))).toBe(true);
    expect((await read(262_143, 262_146)).equals(bytes.subarray(262_143, 524_289))).toBe(true);
    expect((await read(699_999, 10)).equals(bytes.subarray(699_999))).toBe(true);
    expect(await read(700_000, 0)).toHaveLength(0);
    expect(await read(Number.MAX_SAFE_INTEGER, 0)).toHaveLength(0);
  });

  test("reads files that have no size, as those of /proc", async () => {
    const { files } = await inside();
    const told = await content(files.read(id, "/proc/self/status", { offset: 0n, length: 0n }));
    expect(told.toString()).toContain(`Uid:\t${uid}\t${uid}`);
  });

  test("refuses at once what is no regular file, whoever holds its other end", async () => {
    const { files, home } = await inside();
    execFileSync("mkfifo", ["-m", "666", join(home, "fifo")]);
    const listener = createServer().listen(join(home, "socket"));
    onTestFinished(() => void listener.close());
    const read = (path: string) => all(files.read(id, path, { offset: 0n, length: 0n }));
    for (const path of [join(home, "fifo"), "/dev/zero", home])
      await expect(read(path)).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    chmodSync(join(home, "socket"), 0o666);
    await expect(read(join(home, "socket"))).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
  });

  test("ends inside when the reader stops", async () => {
    const { files, home, workers } = await inside();
    writeFileSync(join(home, "large"), "");
    truncateSync(join(home, "large"), 10 * 1024 ** 3);
    let count = 0;
    for await (const _ of files.read(id, join(home, "large"), { offset: 0n, length: 0n })) {
      count += 1;
      if (count === 5) break;
    }
    await expect.poll(workers, { timeout: 5_000 }).toBe(0);
  });
});
