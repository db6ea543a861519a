import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { pack, place, unpack } from "./fixture.ts";

type Node =
  | { readonly file: Uint8Array; readonly mode: number; readonly mtime: number }
  | { readonly link: Buffer; readonly mtime: number }
  | { readonly directory: ReadonlyMap<string, Node>; readonly mode: number; readonly mtime: number };

/** Names are bytes: one in each character. */
const names = fc.oneof(
  fc.constantFrom(
    "a",
    "b",
    " ",
    "new\nline",
    "-rf",
    "..x",
    "\\",
    '"',
    "caf\xe9",
    "\xff\xfe",
    "x".repeat(101),
    "y".repeat(255),
    "Ã©",
  ),
  fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 12 })
    .map((text) => Buffer.from(text).toString("latin1")),
);
const name = names.filter((one) => !/[/\0]/.test(one) && one !== "." && one !== ".." && one.length <= 255);
const mode = fc.integer({ min: 0, max: 0o777 });
const mtime = fc.oneof(
  fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  fc.integer({ min: -1_000_000_000, max: 2 ** 32 }).map((seconds) => seconds + 0.123456),
);
const target = fc
  .uint8Array({ minLength: 1, maxLength: 150 })
  .map((bytes) => Buffer.from(bytes.map((byte) => byte || 1)));
const content = fc.oneof(
  fc.uint8Array({ maxLength: 1500 }),
  fc.integer({ min: 65_000, max: 140_000 }).map((length) => new Uint8Array(length).fill(length % 256)),
);

const { tree } = fc.letrec<{ tree: ReadonlyMap<string, Node>; node: Node }>((tie) => ({
  tree: fc
    .uniqueArray(fc.tuple(name, tie("node")), { maxLength: 6, selector: ([key]) => key })
    .map((all) => new Map(all)),
  node: fc.oneof(
    { depthSize: "small" },
    fc.record({ file: content, mode, mtime }),
    fc.record({ link: target, mtime }),
    fc.record({ directory: tie("tree"), mode, mtime }),
  ),
}));

const pathOf = (parent: string, one: string) => Buffer.from(`${parent}/${one}`, "latin1");

function make(parent: string, nodes: ReadonlyMap<string, Node>): void {
  for (const [one, node] of nodes) {
    const path = pathOf(parent, one);
    if ("file" in node) writeFileSync(path, node.file);
    else if ("link" in node) symlinkSync(node.link, path);
    else {
      mkdirSync(path);
      make(`${parent}/${one}`, node.directory);
    }
    if (!("link" in node)) chmodSync(path, node.mode);
    lutimesSync(path, 0, node.mtime);
  }
}

/** All that an archive keeps of a tree, by path. Times to the microsecond. */
function look(parent: string): Record<string, unknown> {
  const all = readdirSync(Buffer.from(parent, "latin1"), { encoding: "latin1" }).sort();
  return Object.fromEntries(
    all.flatMap((one): [string, unknown][] => {
      const path = pathOf(parent, one);
      const stat = lstatSync(path, { bigint: true });
      const time = Number((stat.mtimeNs + 500n) / 1000n);
      const kept = { mode: stat.mode, time };
      if (stat.isSymbolicLink()) return [[one, { time, link: readlinkSync(path, { encoding: "latin1" }) }]];
      if (stat.isDirectory()) return [[one, { ...kept, directory: look(`${parent}/${one}`) }]];
      return [[one, { ...kept, file: readFileSync(path, "latin1") }]];
    }),
  );
}

test("a tree that was packed and unpacked is what it was, and packed again it is the same archive", async () => {
  await fc.assert(
    fc.asyncProperty(tree, async (nodes) => {
      const from = place();
      const to = place();
      make(from.inside, nodes);
      const { bytes, report } = pack(from.inside);
      const unpacked = await unpack(to.inside, bytes, { maxBytes: 1e8 });
      expect(look(to.inside)).toEqual(look(from.inside));
      expect(unpacked.entries).toBe(report.entries);
      expect(pack(to.inside).bytes.equals(bytes)).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test("unpacked once more over itself, a tree is what it was", async () => {
  const { inside } = place();
  const file = { file: Buffer.from("x"), mode: 0o444, mtime: 5 };
  const shut = { directory: new Map([["f", file]]), mode: 0, mtime: 7 };
  make(inside, new Map([["d", { directory: new Map([["shut", shut]]), mode: 0o555, mtime: 6 }]]));
  const before = look(inside);
  await unpack(inside, pack(inside).bytes);
  expect(look(inside)).toEqual(before);
});

test("files with several names stay one file", async () => {
  const { inside } = place();
  const to = place();
  mkdirSync(`${inside}/z`);
  writeFileSync(`${inside}/b`, "x".repeat(10_000));
  linkSync(`${inside}/b`, `${inside}/a`);
  linkSync(`${inside}/b`, `${inside}/z/c`);
  const { bytes } = pack(inside);
  expect(await unpack(to.inside, bytes)).toEqual({ bytes: 10_000, entries: 4 });
  const inodes = ["a", "b", "z/c"].map((one) => lstatSync(`${to.inside}/${one}`).ino);
  expect(new Set(inodes).size).toBe(1);
});
