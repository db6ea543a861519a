import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync, constants as zlib, zstdCompressSync } from "node:zlib";
import { expect, test } from "vitest";
import { archive, entry, pax, place, unpack } from "./fixture.ts";

const directory = (name: string, mode = "0000755\0", mtime?: string) =>
  entry(name, { type: "5", mode, ...(mtime === undefined ? {} : { mtime }) });
const link = (name: string, linkname: string) => entry(name, { type: "2", linkname });

test("links are made as they are, to wherever, and what takes their name takes their place", async () => {
  const { inside, canary } = place();
  const target = join(canary, "file");
  await unpack(
    inside,
    archive(
      link("l", target),
      link("up", "../canary"),
      entry("l", { content: "new" }),
      directory("up/"),
      entry("up/f"),
    ),
  );
  expect(readFileSync(join(inside, "l"), "utf8")).toBe("new");
  expect(lstatSync(join(inside, "up")).isDirectory()).toBe(true);
  expect(readdirSync(canary)).toEqual(["file"]);
  expect(readFileSync(target, "utf8")).toBe("alive");
});

test("a link keeps its target, also one that is absolute", async () => {
  const { inside } = place();
  await unpack(inside, archive(link("l", "/etc/passwd")));
  expect(readlinkSync(join(inside, "l"))).toBe("/etc/passwd");
});

test("files are replaced, not written into; directories are kept", async () => {
  const { inside, canary } = place();
  mkdirSync(join(inside, "d"));
  writeFileSync(join(inside, "d", "old"), "old");
  symlinkSync(join(canary, "file"), join(inside, "f"));
  await unpack(inside, archive(directory("d/"), entry("d/new"), entry("f", { content: "mine" })));
  expect(readdirSync(join(inside, "d")).sort()).toEqual(["new", "old"]);
  expect(lstatSync(join(inside, "f")).isFile()).toBe(true);
  expect(readFileSync(join(canary, "file"), "utf8")).toBe("alive");
});

test("set-user-id, set-group-id and sticky bits are dropped, and other modes kept", async () => {
  const { inside } = place();
  await unpack(inside, archive(entry("f", { mode: "0007751\0" }), directory("d/", "0007700\0")));
  expect(lstatSync(join(inside, "f")).mode & 0o7777).toBe(0o751);
  expect(lstatSync(join(inside, "d")).mode & 0o7777).toBe(0o700);
});

test("a directory has its mode and time at the end, whatever was unpacked into it, also when the archive comes back to it", async () => {
  const { inside } = place();
  const bytes = archive(
    directory("d/", "0000500\0", "00000000777\0"),
    entry("d/a"),
    directory("e/"),
    entry("e/b"),
    entry("d/c"),
  );
  await unpack(inside, bytes);
  const { mode, mtimeMs } = lstatSync(join(inside, "d"));
  expect([mode & 0o777, mtimeMs]).toEqual([0o500, 0o777 * 1000]);
  expect(readdirSync(join(inside, "d"))).toEqual(["a", "c"]);
});

test("the directory that all is in keeps its mode", async () => {
  const { inside } = place();
  expect(await unpack(inside, archive(directory("./", "0000777\0"), entry("./a")))).toEqual({
    bytes: 0,
    entries: 2,
  });
  expect(lstatSync(inside).mode & 0o777).toBe(0o700);
});

test("extended headers tell name, size and time", async () => {
  const { inside } = place();
  const bytes = archive(
    pax({ comment: "of git" }, "g"),
    pax({ path: "caf\u00e9\n", size: "3", mtime: "1700000000.25", "SCHILY.xattr.user.x": "\0" }),
    entry("short", { size: "00000000000\0", content: "abc" }),
    entry("long", { type: "L", content: `${"n".repeat(150)}\0` }),
    entry("cut", { magic: "ustar  \0" }),
    entry("name", { prefix: "in/a", content: "p" }),
    entry("v7/", { magic: "" }),
  );
  await unpack(inside, bytes);
  expect(readdirSync(inside).sort()).toEqual(["café\n", "in", "n".repeat(150), "v7"]);
  expect(readFileSync(join(inside, "café\n"), "utf8")).toBe("abc");
  expect(lstatSync(join(inside, "café\n")).mtimeMs).toBe(1_700_000_000_250);
  expect(readFileSync(join(inside, "in/a/name"), "utf8")).toBe("p");
});

test("an extended header counts for one entry alone", async () => {
  const { inside } = place();
  await unpack(
    inside,
    archive(pax({ path: "a" }), entry("x"), entry("b"), entry("p", { type: "x" }), entry("c")),
  );
  expect(readdirSync(inside)).toEqual(["a", "b", "c"]);
});

test("an archive of nothing is one", async () => {
  expect(await unpack(place().inside, archive())).toEqual({ bytes: 0, entries: 0 });
});

test("zstd is told by its start, also in several frames", async () => {
  const { inside } = place();
  const bytes = archive(entry("f", { content: "x".repeat(5000) }));
  const frames = [bytes.subarray(0, 700), bytes.subarray(700)].map((part) => zstdCompressSync(part));
  expect(await unpack(inside, Buffer.concat(frames))).toEqual({ bytes: 5000, entries: 1 });
});

const compressed = zstdCompressSync(archive(entry("f", { content: "x".repeat(5000) })), {
  params: { [zlib.ZSTD_c_checksumFlag]: 1 },
});

test.each([
  ["gzip", gzipSync(archive(entry("f"))), /^the archive is compressed with gzip$/],
  ["xz", Buffer.from("fd377a585a000004", "hex"), /^the archive is compressed with xz$/],
  ["bzip2", Buffer.from("BZh91AY&SY"), /^the archive is compressed with bzip2$/],
  ["zstd that is cut", compressed.subarray(0, -3), /^the archive is cut/],
  [
    "zstd that is damaged",
    Buffer.concat([compressed.subarray(0, -1), Buffer.from([(compressed.at(-1) ?? 0) ^ 1])]),
    /zstd data is damaged/,
  ],
  [
    "zstd with something behind it",
    Buffer.concat([compressed, Buffer.from("garbage")]),
    /zstd data is damaged/,
  ],
  [
    "zstd with a window that would take much memory",
    zstdCompressSync(Buffer.alloc(2 ** 25), { params: { [zlib.ZSTD_c_windowLog]: 25 } }),
    /^the archive needs a zstd window of more than 8388608 bytes$/,
  ],
])("%s is refused", async (_what, bytes, why) => {
  await expect(unpack(place().inside, bytes)).rejects.toThrow(
    expect.objectContaining({ reason: "ARCHIVE_REFUSED", message: expect.stringMatching(why) }),
  );
});
