import { chmod, chown, mkdir, mkdtemp, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openHome } from "../../../../src/workspace/backend/home.ts";
import { type RunTool, ToolError } from "../../../../src/workspace/backend/tool.ts";

const none: RunTool = async (program) => {
  throw new ToolError(program, 1, "not today");
};

const open = (directory: string, isMounted = false) => openHome(directory, { run: none, isMounted });

describe.skipIf(process.getuid?.() !== 0)("the directory of workspaces", () => {
  let base = "";
  let directory = "";
  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), "home-"));
    directory = join(base, "workspaces");
  });
  afterEach(() => rm(base, { recursive: true, force: true }));

  const modeOf = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8);

  test("is made if it is not there, and only passed through by others", async () => {
    const before = process.umask(0o077);
    try {
      await open(directory);
    } finally {
      process.umask(before);
    }
    expect([await modeOf(directory), await modeOf(join(directory, "spaces"))]).toEqual(["711", "711"]);
  });

  test("that others could read is closed to them", async () => {
    await mkdir(directory, { mode: 0o755 });
    const home = await open(directory);
    expect([await modeOf(directory), await modeOf(await home.own("images"))]).toEqual(["711", "700"]);
  });

  test.each<[string, () => Promise<unknown>]>([
    ["is a link", () => symlink(base, directory)],
    ["is of user 20001", () => mkdir(directory).then(() => chown(directory, 20_001, 20_001))],
    ["can be written by others", () => mkdir(directory).then(() => chmod(directory, 0o777))],
    ["is below one of user 20001", () => mkdir(directory).then(() => chown(base, 20_001, 20_001))],
    ["is below one that can be written by others", () => mkdir(directory).then(() => chmod(base, 0o777))],
  ])("that %s is refused, and left as it is", async (_, prepare) => {
    await prepare();
    await expect(open(directory)).rejects.toMatchObject({
      reason: "WORKSPACES_UNAVAILABLE",
      details: { hint: expect.stringContaining("must be root's") },
    });
    await expect(stat(join(base, "spaces"))).rejects.toThrow("ENOENT");
  });

  test("that a link leads to further up is taken where it really is", async () => {
    await mkdir(join(base, "real"));
    await symlink(join(base, "real"), join(base, "link"));
    const home = await open(join(base, "link/workspaces"));
    expect(home.directory).toBe(join(base, "real/workspaces"));
  });

  test("that cannot be mounted is refused with what the program said", async () => {
    await expect(open(directory, true)).rejects.toThrow("mount: not today");
    await expect(open(directory, true)).rejects.toMatchObject({ reason: "WORKSPACES_UNAVAILABLE" });
  });

  test("whose mount does not hold what it must is refused", async () => {
    const run: RunTool = async () => "";
    await expect(openHome(directory, { run, isMounted: true })).rejects.toThrow(
      "does not hold nosuid and nodev",
    );
  });

  test.each(["", "..", "a/b", "A", "a.b", "-".repeat(64), "a\n"])(
    "holds no space of the name %j",
    async (name) => {
      const home = await open(directory);
      expect(() => home.folderOf(name)).toThrow("is not the name of a space");
    },
  );
});
