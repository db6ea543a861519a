import { describe, expect, test } from "vitest";
import { withPrefix } from "../../../../src/cli/ctl/copy/prefix.ts";
import { readTar } from "../../../../src/workspace/archive/tar-reader.ts";
import { createTarWriter } from "../../../../src/workspace/archive/tar-writer.ts";

async function* archive() {
  const writer = createTarWriter();
  const plain = { linkPath: "", mode: 0o644, size: 0, mtime: 1.5 };
  yield* writer.header({ ...plain, type: "5", path: "sub/" });
  yield* writer.header({ ...plain, type: "0", path: `sub/${"long".repeat(60)}`, size: 700 });
  yield* writer.content(700, (into) => into.fill("x").length);
  yield* writer.header({ ...plain, type: "1", path: "hard", linkPath: "sub/file" });
  yield* writer.header({ ...plain, type: "2", path: "soft", linkPath: "../elsewhere" });
  yield* writer.end();
}

describe("an archive with a name before each name", () => {
  test("is whole: names and hard links lead into the directory, symbolic links and content stay", async () => {
    const found: unknown[] = [];
    for await (const { kind, path, linkPath, size, mtime, readSome } of readTar(
      withPrefix(archive(), "née"),
    )) {
      const prefix = Buffer.from("née/").toString("latin1");
      expect(path.startsWith(prefix)).toBe(true);
      found.push([kind, path.slice(prefix.length), linkPath.replace(prefix, "PREFIX/"), size, mtime]);
      expect((await readSome()).length).toBe(size);
    }
    expect(found).toEqual([
      ["directory", "", "", 0, 0],
      ["directory", "sub/", "", 0, 1.5],
      ["file", `sub/${"long".repeat(60)}`, "", 700, 1.5],
      ["hardlink", "hard", "PREFIX/sub/file", 0, 1.5],
      ["symlink", "soft", "../elsewhere", 0, 1.5],
    ]);
  });
});
