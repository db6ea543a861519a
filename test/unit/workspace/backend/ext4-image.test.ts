import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  heldOf,
  imageLimits,
  makeImage,
  readImageLimits,
} from "../../../../src/workspace/backend/ext4-image.ts";
import { type RunTool, ToolError } from "../../../../src/workspace/backend/tool.ts";

const mebibyte = 1024 ** 2;

describe("what an image can hold", () => {
  test("is never more than asked, beyond the file system's own, and at most 15 inodes less for each 128 MiB", () => {
    const sizes = fc.record({
      bytes: fc.integer({ min: 8 * mebibyte, max: 4 * 1024 ** 4 }),
      perMebibyte: fc.integer({ min: 1, max: 200 }),
    });
    fc.assert(
      fc.property(sizes, ({ bytes, perMebibyte }) => {
        const inodes = Math.max(100, Math.ceil(bytes / mebibyte) * perMebibyte);
        const made = imageLimits({ bytes, inodes });
        const groups = Math.ceil(Math.floor(bytes / 4_096) / 32_768);
        expect(made.bytes).toBeLessThanOrEqual(bytes);
        expect(made.bytes).toBeGreaterThan(bytes - 4_096);
        expect(made.inodes - 11).toBeLessThanOrEqual(inodes);
        expect(made.inodes - 11).toBeGreaterThan(inodes - 16 * groups);
      }),
    );
  });

  test.each([
    ["no size", { bytes: 0, inodes: 100 }],
    ["too small a size", { bytes: 8 * mebibyte - 1, inodes: 100 }],
    ["too large a size", { bytes: 16 * 1024 ** 4, inodes: 1e6 }],
    ["no inodes", { bytes: 64 * mebibyte }],
    ["fewer inodes than the layout needs", { bytes: 64 * mebibyte, inodes: 8 }],
    ["fewer inodes than one block of them in each group", { bytes: 1024 ** 4, inodes: 100_000 }],
    ["more inodes than there is room for", { bytes: 64 * mebibyte, inodes: 10_000_000 }],
  ])("is refused for %s, with what it can be", (_, limits) => {
    expect(() => imageLimits(limits)).toThrow(
      expect.objectContaining({
        reason: "LIMIT_UNENFORCEABLE",
        details: expect.objectContaining({
          hint: expect.stringMatching(/^it can have \d+ to \d+ (bytes|inodes)$/),
        }),
      }),
    );
  });

  test("what the file system has for itself is not counted as held", () => {
    const empty = { blocks: 1_000, bfree: 995, bsize: 4_096, files: 512, ffree: 501 };
    expect(heldOf(empty)).toEqual({ bytes: 0, inodes: 0 });
    expect(heldOf({ ...empty, bfree: 990, ffree: 500 })).toEqual({ bytes: 20_480, inodes: 1 });
  });
});

describe("making an image", () => {
  let directory = "";
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "image-"));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  const limits = { bytes: 16 * mebibyte, inodes: 512 };
  const make = (run: RunTool) => makeImage(join(directory, "one"), limits, { run });

  test("that fails leaves no file, and says what the program said", async () => {
    const run: RunTool = async (program, args) => {
      await writeFile(String(args.at(-1)), "half");
      if (program === "mkfs.ext4") throw new ToolError(program, 1, "this disk is made of cheese");
      return "";
    };
    await expect(make(run)).rejects.toThrow("mkfs.ext4: this disk is made of cheese");
    expect(await readdir(directory)).toEqual([]);
  });

  test("by programs that say they did, and did not, is refused and leaves no file", async () => {
    const run: RunTool = async (_, args) => {
      await writeFile(String(args.at(-1)), Buffer.alloc(8_192, "nonsense"));
      return "done\n";
    };
    await expect(make(run)).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    expect(await readdir(directory)).toEqual([]);
  });

  test("of a file system that nothing was reserved for is refused", async () => {
    const run: RunTool = async (_, args) => {
      const superblock = Buffer.alloc(2_048);
      superblock.writeUInt32LE(limits.inodes, 1_024);
      superblock.writeUInt32LE(limits.bytes / 4_096, 1_028);
      superblock.writeUInt32LE(2, 1_048);
      superblock.writeUInt16LE(0xef53, 1_080);
      await writeFile(String(args.at(-1)), superblock);
      return "";
    };
    await expect(make(run)).rejects.toThrow(/16777216 bytes and 512 inodes of .* with \d{4} bytes reserved/);
    expect(await readdir(directory)).toEqual([]);
  });

  test("a file that is none has no limits", async () => {
    await writeFile(join(directory, "short"), "x");
    expect(await readImageLimits(join(directory, "short"))).toBeUndefined();
  });
});
