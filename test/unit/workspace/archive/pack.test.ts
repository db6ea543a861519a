import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  constants,
  mkdirSync,
  openSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createByteSource } from "../../../../src/workspace/archive/byte-source.ts";
import { packTree } from "../../../../src/workspace/archive/pack.ts";
import { readTar } from "../../../../src/workspace/archive/tar-reader.ts";
import { pack, pieces, place, unpack } from "./fixture.ts";

async function listOf(bytes: Buffer): Promise<readonly string[]> {
  const paths: string[] = [];
  for await (const { path } of readTar(pieces(bytes))) paths.push(path);
  return paths;
}

test("names come in the order of their bytes, a directory before what it holds", async () => {
  const { inside } = place();
  mkdirSync(join(inside, "b"));
  for (const name of ["b/z", "b/a", "b.txt", "a", "B", "é"]) writeFileSync(join(inside, name), "");
  const { bytes } = pack(inside);
  expect(await listOf(bytes)).toEqual([
    "B",
    "a",
    "b/",
    "b/a",
    "b/z",
    "b.txt",
    Buffer.from("é").toString("latin1"),
  ]);
});

test("what is neither file, directory nor link is left out and counted", async () => {
  const { inside } = place();
  execFileSync("mkfifo", [join(inside, "fifo")]);
  writeFileSync(join(inside, "file"), "");
  const { bytes, report } = pack(inside);
  expect(await listOf(bytes)).toEqual(["file"]);
  expect(report).toMatchObject({ entries: 1, special: 1, unreadable: 0 });
});

test("an archive is refused before it would be larger than it may be", () => {
  const { inside } = place();
  writeFileSync(join(inside, "file"), "x".repeat(512));
  utimesSync(join(inside, "file"), 0, 0);
  // header, content, and two blocks at the end
  expect(pack(inside, 2048).report.bytes).toBe(2048);
  expect(() => pack(inside, 2047)).toThrow(
    expect.objectContaining({
      reason: "ARCHIVE_TOO_LARGE",
      details: { metadata: { limit: "2047", value: "2048" } },
    }),
  );
});

test("64 directories within each other are packed and unpacked, 65 are refused", async () => {
  const [{ inside }, to] = [place(), place()];
  const path = Array(64).fill("d").join("/");
  mkdirSync(join(inside, path), { recursive: true });
  writeFileSync(join(inside, path, "file"), "");
  expect(await unpack(to.inside, pack(inside).bytes)).toEqual({ bytes: 0, entries: 65 });
  mkdirSync(join(inside, path, "d"));
  expect(() => pack(inside)).toThrow(/: it is deeper than 64 directories$/);
});

test("a path that could not be unpacked is refused", () => {
  const { inside } = place();
  const long = Array(17).fill("d".repeat(250));
  execFileSync("sh", ["-c", long.map((name) => `mkdir ${name}; cd -P ${name}`).join(";")], { cwd: inside });
  expect(() => pack(inside)).toThrow(/its path is longer than 4096 bytes/);
});

test.each([
  ["shrinks", (file: string) => truncateSync(file, 70_000), "x".repeat(70_000) + "\0".repeat(130_000)],
  ["grows", (file: string) => appendFileSync(file, "y".repeat(100_000)), "x".repeat(200_000)],
])(
  "a file that %s meanwhile has the size in the archive that it had when it was opened",
  async (_how, change, expected) => {
    const { inside } = place();
    const file = join(inside, "file");
    writeFileSync(file, "x".repeat(200_000));
    const packed = packTree({ root: openSync(inside, constants.O_RDONLY) });
    const chunks = [packed.next().value as Buffer];
    change(file);
    for (const chunk of packed) chunks.push(chunk);
    for await (const { size, readSome } of readTar(pieces(Buffer.concat(chunks)))) {
      const source = createByteSource(
        (async function* () {
          for (let piece = await readSome(); piece.length > 0; piece = await readSome()) yield piece;
        })(),
      );
      expect((await source.read(size + 1)).toString()).toBe(expected);
    }
  },
);
