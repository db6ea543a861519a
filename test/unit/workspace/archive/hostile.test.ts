import { lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../../src/errors.ts";
import { archive, end, entry, pax, pieces, place, unpack } from "./fixture.ts";

const deep = (directories: number) => Array(directories).fill("d").join("/");

/** Base 256, as GNU tar has it: a size that octal digits cannot say. */
const binarySize = (hex: string) => Buffer.from(hex, "hex");

const good = entry("good", { content: "x" });

/** What it is · the archive · why it is refused. */
const refusedArchives: readonly (readonly [string, Buffer, RegExp])[] = [
  ["an absolute path", archive(entry("/etc/x")), /^entry "\/etc\/x": its path is absolute$/],
  [
    "an absolute path in a pax header",
    archive(pax({ path: "/etc/x" }), entry("x")),
    /"\/etc\/x": its path is absolute/,
  ],
  [
    "an absolute path by GNU's long name",
    archive(entry("l", { type: "L", content: "/etc/x\0" }), entry("x")),
    /its path is absolute/,
  ],
  ["an absolute path by the prefix", archive(entry("x", { prefix: "/etc" })), /its path is absolute/],
  ["a path up", archive(entry("../canary/x")), /its path has "\.\."/],
  ["a path up at the end", archive(entry("a/..", { type: "5" })), /its path has "\.\."/],
  ["a path up in between", archive(entry("a/../../canary/x")), /its path has "\.\."/],
  ["no name", archive(entry("")), /^entry "": it has no name$/],
  ["a file named as the directory itself", archive(entry("./.")), /it has no name/],
  ["a NUL in a name", archive(pax({ path: "a\0b" }), entry("x")), /^entry "a\\u\{0\}b": its name has a NUL$/],
  ["a long name", archive(pax({ path: "n".repeat(256) }), entry("x")), /its name is longer than 255 bytes/],
  [
    "a long path",
    archive(pax({ path: "abc/".repeat(1025) }), entry("x")),
    /its path is longer than 4096 bytes/,
  ],
  [
    "a directory too deep",
    archive(pax({ path: deep(65) }), entry("x", { type: "5" })),
    /it is deeper than 64 directories/,
  ],
  [
    "a file too deep",
    archive(pax({ path: `${deep(65)}/f` }), entry("x")),
    /it is deeper than 64 directories/,
  ],
  [
    "a file through its own link",
    archive(entry("l", { type: "2", linkname: "../canary" }), entry("l/file")),
    /"l\/file": its path leads through what is no directory/,
  ],
  [
    "a directory through its own link",
    archive(entry("l", { type: "2", linkname: "../canary" }), entry("l/d/", { type: "5" })),
    /leads through/,
  ],
  [
    "a link through a link",
    archive(entry("l", { type: "2", linkname: "../canary" }), entry("l/k", { type: "2", linkname: "x" })),
    /leads through/,
  ],
  ["a file through a link on disk", archive(entry("outside/file")), /leads through what is no directory/],
  ["a file through a file", archive(good, entry("good/x")), /leads through what is no directory/],
  [
    "a hard link outside",
    archive(entry("h", { type: "1", linkname: "../canary/file" })),
    /"h": it is a hard link to a path that is refused/,
  ],
  [
    "an absolute hard link",
    archive(entry("h", { type: "1", linkname: "/etc/passwd" })),
    /it is a hard link to a path that is refused/,
  ],
  [
    "a hard link through a link",
    archive(entry("h", { type: "1", linkname: "outside/file" })),
    /it is a hard link to what is no file/,
  ],
  [
    "a hard link to a link",
    archive(entry("h", { type: "1", linkname: "outside" })),
    /it is a hard link to what is no file/,
  ],
  [
    "a hard link to a directory",
    archive(entry("h", { type: "1", linkname: "kept" })),
    /it is a hard link to what is no file/,
  ],
  [
    "a hard link to nothing",
    archive(entry("h", { type: "1", linkname: "absent" }), entry("absent")),
    /it is a hard link to what is no file/,
  ],
  [
    "a hard link to itself",
    archive(good, entry("good", { type: "1", linkname: "./good" })),
    /it is a hard link to itself/,
  ],
  ["a link to nothing", archive(entry("l", { type: "2" })), /it is a link to nothing/],
  [
    "a link's target with a NUL",
    archive(pax({ linkpath: "a\0b" }), entry("l", { type: "2", linkname: "x" })),
    /its target has a NUL/,
  ],
  [
    "a link's target too long",
    archive(pax({ linkpath: "t".repeat(4096) }), entry("l", { type: "2", linkname: "x" })),
    /its target is longer than 4095 bytes/,
  ],
  ["a character device", archive(entry("x", { type: "3" })), /it is a device/],
  ["a block device", archive(entry("x", { type: "4" })), /it is a device/],
  ["a FIFO", archive(entry("x", { type: "6" })), /it is a FIFO/],
  ["a contiguous file", archive(entry("x", { type: "7" })), /it is a contiguous file/],
  ["a sparse file of GNU's", archive(entry("x", { type: "S" })), /it is a sparse file/],
  [
    "a sparse file by pax",
    archive(pax({ "GNU.sparse.major": "1", "GNU.sparse.name": "y" }), entry("x")),
    /it is a sparse file/,
  ],
  ["a volume's label", archive(entry("x", { type: "V" })), /it is a volume's label/],
  ["a part of a file", archive(entry("x", { type: "M" })), /it goes on from another volume/],
  ["a dump", archive(entry("x", { type: "D" })), /it is a dump of a directory/],
  ["an unknown type", archive(entry("x", { type: "\x1b" })), /its type is unknown/],
  [
    "a negative size",
    archive(entry("x", { size: binarySize("ffffffffffffffffffffff00") })),
    /its size is impossible/,
  ],
  [
    "a huge size",
    archive(entry("x", { size: binarySize("80ffffffffffffffffffffff") })),
    /a number in it is malformed/,
  ],
  ["a huge size by pax", archive(pax({ size: "9999999999999999999" }), entry("x")), /its size is impossible/],
  [
    "a negative size by pax",
    archive(pax({ size: "-1" }), entry("x")),
    /the size in its extended header is malformed/,
  ],
  [
    "a time that is none",
    archive(pax({ mtime: "1e300" }), entry("x")),
    /the mtime in its extended header is malformed/,
  ],
  [
    "a directory with content",
    archive(entry("d/", { type: "5", content: "x" })),
    /it has content, and is no file/,
  ],
  ["a size that is no number", archive(entry("x", { size: "0000000008\0" })), /a number in it is malformed/],
  [
    "a header of the wrong sum",
    archive(good, entry("x", { checksum: "000000\0 " })),
    /the archive is damaged: a header: its checksum is wrong/,
  ],
  [
    "a pax header without records",
    archive(entry("p", { type: "x", content: "nothing" }), entry("x")),
    /its extended header is malformed/,
  ],
  [
    "a pax record that is too long",
    archive(entry("p", { type: "x", content: "99 path=x\n" }), entry("x")),
    /its extended header is malformed/,
  ],
  [
    "a pax header of a negative size",
    archive(entry("p", { type: "x", size: binarySize("ffffffffffffffffffffff00") })),
    /its size is impossible/,
  ],
  [
    "a huge pax header",
    archive(entry("p", { type: "x", size: "00010000000\0" })),
    /its extended header is larger than 1048576 bytes/,
  ],
  [
    "a huge pax header for all",
    archive(entry("p", { type: "g", size: "77777777777\0" })),
    /its extended header is larger than 1048576 bytes/,
  ],
  [
    "a huge long name",
    archive(entry("p", { type: "L", size: "77777777777\0" })),
    /its extended header is larger/,
  ],
  [
    "many pax headers for one entry",
    archive(...Array(3).fill(pax({ comment: "c".repeat(400_000) })), entry("x")),
    /its extended header is larger/,
  ],
  [
    "a file in a directory's place",
    archive(entry("kept")),
    /^entry "kept": there is a directory in its place$/,
  ],
  [
    "a link in a directory's place",
    archive(entry("kept", { type: "2", linkname: "x" })),
    /there is a directory in its place/,
  ],
  [
    "no archive at all",
    Buffer.from("x".repeat(2000)),
    /this is no tar archive: the header: its checksum is wrong/,
  ],
  ["nothing", Buffer.alloc(0), /this is no tar archive: it is too short/],
  ["one that is cut in a header", Buffer.concat([good, good.subarray(0, 100)]), /the archive is cut/],
  [
    "one that is cut in a file",
    entry("x", { content: "x".repeat(2000) }).subarray(0, 1500),
    /the archive is cut/,
  ],
  ["one that is cut in a filler", entry("x", { content: "x" }).subarray(0, 600), /the archive is cut/],
  ["one that is cut between entries", good, /the archive is cut/],
  ["one that is cut in its end", Buffer.concat([good, Buffer.alloc(512)]), /the archive is cut/],
  [
    "one with zeros in between",
    Buffer.concat([good, Buffer.alloc(512), good, end]),
    /a single block of zeros/,
  ],
];

/** With what an earlier sandbox may have left in it, and may not be fooled by. */
function trap() {
  const { inside, canary } = place();
  symlinkSync("../canary", join(inside, "outside"));
  mkdirSync(join(inside, "kept"));
  writeFileSync(join(inside, "kept", "file"), "kept");
  return { inside, canary };
}

function expectUntouched(canary: string): void {
  expect(readdirSync(canary)).toEqual(["file"]);
  expect(readFileSync(join(canary, "file"), "utf8")).toBe("alive");
  expect(lstatSync(join(canary, "file")).nlink).toBe(1);
}

async function refusalOf(promise: Promise<unknown>): Promise<SandboxdError> {
  const error = await promise.then(
    () => undefined,
    (problem: unknown) => problem,
  );
  if (error instanceof SandboxdError) return error;
  throw new Error(`no refusal: ${error}`);
}

describe("a hostile archive", () => {
  test.each(refusedArchives)(
    "is refused for %s, and nothing outside is touched",
    async (_what, bytes, why) => {
      const { inside, canary } = trap();
      const error = await refusalOf(unpack(inside, bytes));
      expect(error.message).toMatch(why);
      expect(error.reason).toBe("ARCHIVE_REFUSED");
      expectUntouched(canary);
      expect(readFileSync(join(inside, "kept", "file"), "utf8")).toBe("kept");
    },
  );

  test("is refused all the same under zstd", async () => {
    const { inside, canary } = trap();
    const error = await refusalOf(unpack(inside, zstdCompressSync(archive(entry("../canary/x")))));
    expect(error.message).toMatch(/its path has "\.\."/);
    expectUntouched(canary);
  });

  test("cannot speak to a terminal through an error", async () => {
    const { inside } = trap();
    const name = "../\x1b[2J\n\u202e\x7f\u0085\u2028".padEnd(3000, "x");
    const error = await refusalOf(unpack(inside, archive(pax({ path: name }), entry("x"))));
    expect(error.message).toMatch(/^[\x20-\x7e…]{1,600}$/);
    expect(error.details.metadata?.["entry"]).toMatch(/^\.\.\/\\u\{1b\}\[2J\\u\{a\}\\u\{202e\}/);
  });

  test("that holds more than it may ends there, and says how much", async () => {
    const { inside } = trap();
    const bytes = archive(entry("a", { content: "x".repeat(60) }), entry("b", { content: "x".repeat(60) }));
    const error = await refusalOf(unpack(inside, bytes, { maxBytes: 100 }));
    expect(error.reason).toBe("ARCHIVE_TOO_LARGE");
    expect(error.details.metadata).toEqual({ limit: "100", value: "120", entry: "b" });
    expect(readdirSync(inside).sort()).toEqual(["a", "kept", "outside"]);
  });

  test("may hold just as much as it may", async () => {
    const { inside } = trap();
    const bytes = archive(entry("a", { content: "x".repeat(60) }), entry("b", { content: "x".repeat(60) }));
    expect(await unpack(inside, bytes, { maxBytes: 120, maxEntries: 2 })).toEqual({ bytes: 120, entries: 2 });
  });

  test("with more entries than it may ends there", async () => {
    const { inside } = trap();
    const error = await refusalOf(
      unpack(inside, archive(entry("a"), entry("b"), entry("c")), { maxEntries: 2 }),
    );
    expect(error.reason).toBe("ARCHIVE_TOO_LARGE");
    expect(error.details.metadata).toEqual({ limit: "2", value: "3", entry: "c" });
  });

  test.each([
    [
      "headers for all",
      pax({ comment: "c".repeat(100_000) }, "g"),
      /bytes, headers included|extended header is larger/,
    ],
    ["fillers after its end", Buffer.alloc(1024 * 1024), /bytes, headers included/],
  ])("of endless %s ends", async (_what, block, why) => {
    const { inside } = trap();
    const chunks = (async function* () {
      for (;;) yield block;
    })();
    expect((await refusalOf(unpack(inside, block, { chunks }))).message).toMatch(why);
  });

  test("of endless garbage behind its compressed data ends", async () => {
    const { inside } = trap();
    const chunks = (async function* () {
      yield zstdCompressSync(archive(good));
      for (;;) yield Buffer.alloc(1024 * 1024, "garbage");
    })();
    const error = await refusalOf(unpack(inside, end, { chunks }));
    expect(error.message).toMatch(/zstd data is damaged: there is something else behind it/);
  });

  test("of whatever bytes ends, within its directory, with an answer", async () => {
    const parts = fc.oneof(
      fc.constantFrom(...refusedArchives.map(([, bytes]) => bytes)),
      fc.uint8Array({ maxLength: 1200 }).map((bytes) => Buffer.from(bytes)),
    );
    const flips = fc.array(fc.tuple(fc.nat(20_000), fc.nat(255)), { maxLength: 5 });
    const { inside, canary } = trap();
    await fc.assert(
      fc.asyncProperty(fc.array(parts, { minLength: 1, maxLength: 4 }), flips, async (some, changes) => {
        const bytes = Buffer.concat(some);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        const problem = await unpack(inside, bytes, { chunks: pieces(bytes, 777) }).catch((error) => error);
        if (problem instanceof Error) expect(problem).toBeInstanceOf(SandboxdError);
        expectUntouched(canary);
      }),
      { numRuns: 300 },
    );
  });
});
