// What becomes of a step when a program of the host fails, hangs, or prints nonsense.

import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Space } from "../../../../src/workspace/backend/backend.ts";
import { createBtrfs } from "../../../../src/workspace/backend/btrfs.ts";
import { failing } from "../../../../src/workspace/backend/failing.ts";
import type { Home } from "../../../../src/workspace/backend/home.ts";
import { createLoopImage } from "../../../../src/workspace/backend/loop-image.ts";
import { chooseBackend, probeAll } from "../../../../src/workspace/backend/probe.ts";
import { type RunTool, ToolError } from "../../../../src/workspace/backend/tool.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tools-"));
  await mkdir(join(directory, "spaces"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

function home(): Home {
  const spaces = join(directory, "spaces");
  return {
    directory,
    folderOf: (name) => join(spaces, name),
    contentOf: (name) => join(spaces, name, "data"),
    names: () => readdir(spaces),
    async own(name) {
      await mkdir(join(directory, name), { recursive: true });
      return join(directory, name);
    },
    close: async () => {},
  };
}

const filesLeft = async () =>
  (await readdir(directory, { recursive: true })).filter((name) => name.includes("one"));

const space: Space = {
  name: "one",
  uid: 20_001,
  projectId: 1,
  limits: { bytes: 16 * 1024 ** 2, inodes: 200 },
};

const hang: RunTool = (program, _, { signal } = {}) =>
  new Promise((_resolve, reject) => {
    const off = () => reject(new ToolError(program, undefined, "it was called off"));
    if (signal?.aborted) off();
    signal?.addEventListener("abort", off);
  });

describe("an image", () => {
  test.each([
    ["fallocate", "fallocate failed: No space left on device", "LIMIT_UNENFORCEABLE"],
    ["fallocate", "fallocate failed: Operation not supported", "INTERNAL"],
    ["fallocate", "is not on this host", "INTERNAL"],
  ] as const)("that %s cannot make (%s) is refused with its words as %s", async (failed, said, reason) => {
    const run: RunTool = async (program) => {
      throw new ToolError(program, 1, said);
    };
    const backend = await createLoopImage({ home: home(), run });
    const refusal = backend.create(space);
    await expect(refusal).rejects.toMatchObject({ reason });
    await expect(refusal).rejects.toThrow(`workspace one cannot be made: ${failed}: ${said}`);
    expect(await filesLeft()).toEqual([]);
  });

  test("that takes for ever is given up with the caller, and leaves nothing", async () => {
    const backend = await createLoopImage({ home: home(), run: hang });
    const caller = new AbortController();
    const made = backend.create(space, { signal: caller.signal });
    caller.abort();
    await expect(made).rejects.toThrow("fallocate: it was called off");
    expect(await filesLeft()).toEqual([]);
  });
});

describe("a btrfs file system", () => {
  test.each(["", "uuid: none\n", "Label: none  uuid: ../../../../etc\n"])(
    "whose identity is nonsense (%j) is not used",
    async (output) => {
      await expect(createBtrfs({ home: home(), run: async () => output })).rejects.toThrow(
        "btrfs does not say which file system",
      );
    },
  );

  test("that says it counts, and has no counts in the kernel, is not used", async () => {
    const run: RunTool = async () => "Label: none  uuid: 00000000-0000-4000-8000-000000000000\n";
    await expect(createBtrfs({ home: home(), run })).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
  });
});

describe("a step that fails", () => {
  test("for want of room on the host is a limit that cannot be held, whoever says so", async () => {
    const full = Object.assign(new Error("EDQUOT: quota exceeded, mkdir"), { code: "EDQUOT" });
    const refusal = failing("it cannot be made", () => Promise.reject(full));
    await expect(refusal).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    await expect(refusal).rejects.toThrow("it cannot be made: EDQUOT");
  });

  test("for anything else is an error of the daemon's", async () => {
    await expect(failing("it cannot be made", () => Promise.reject(new Error("odd")))).rejects.toMatchObject({
      reason: "INTERNAL",
      message: "it cannot be made: odd",
    });
  });
});

describe("a look at the host", () => {
  const run: RunTool = async () => {
    throw new Error("nothing is to be run");
  };

  test.skipIf(process.getuid?.() !== 0)("names the program and the packages that it lacks", async () => {
    const probed = await probeAll({ directory, run, programs: [directory] });
    const loop = probed.find(({ kind }) => kind === "LOOP_IMAGE");
    expect(loop?.obstacle).toMatch(
      /^(fallocate is not on this host: install e2fsprogs|.* is on |the host has no loop)/,
    );
  });

  test("says for each backend why it does not fit", async () => {
    const probed = await probeAll({ directory: "/proc/no/such", run, programs: [] });
    expect(probed.map(({ kind }) => kind)).toEqual(["BTRFS", "PROJECT_QUOTA", "LOOP_IMAGE"]);
    for (const { obstacle } of probed) expect(obstacle).toMatch(/.{10}/);
  });

  test("takes none where the configuration asks for none", async () => {
    expect(await chooseBackend({ directory, run, wanted: "none" })).toEqual({
      obstacle: "the configuration asks for none",
      hint: expect.stringContaining("auto"),
    });
    expect(await readdir(directory)).toEqual(["spaces"]);
  });
});
