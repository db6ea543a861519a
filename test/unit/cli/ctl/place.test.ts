import { describe, expect, test } from "vitest";
import { type Destination, parsePlace, type Source, targetPath } from "../../../../src/cli/ctl/copy/place.ts";

describe("places of a copy", () => {
  test("ID:PATH is in a sandbox, from its root; - is a stream; all else is here", () => {
    expect(parsePlace("box:/a:b")).toEqual({ kind: "sandbox", sandboxId: "box", path: "/a:b" });
    expect(parsePlace("box:a")).toEqual({ kind: "sandbox", sandboxId: "box", path: "/a" });
    expect(parsePlace("-")).toEqual({ kind: "stream" });
    for (const path of ["./box:a", "/box:a", "a/b:c", "Box:a", "plain"])
      expect(parsePlace(path)).toEqual({ kind: "local", path });
  });

  const file: Source = { kind: "file", path: "/src/name" };
  const directory: Source = { kind: "directory", path: "/src/name" };
  const place = (kind: Destination["kind"], path = "/dst", hasParent = true): Destination => ({
    kind,
    path,
    hasParent,
  });

  test("a file becomes what is named, or goes into the directory that is named", () => {
    expect(targetPath(file, place("absent"))).toBe("/dst");
    expect(targetPath(file, place("file"))).toBe("/dst");
    expect(targetPath(file, place("directory"))).toBe("/dst/name");
    expect(targetPath({ kind: "link", path: "link" }, place("directory", "."))).toBe("link");
  });

  test("a directory goes into one that is there, and becomes one that is not; with /. its content does", () => {
    expect(targetPath(directory, place("absent"))).toBe("/dst");
    expect(targetPath(directory, place("directory"))).toBe("/dst/name");
    expect(targetPath({ ...directory, path: "/src/name/" }, place("directory"))).toBe("/dst/name");
    expect(targetPath({ ...directory, path: "/src/name/." }, place("directory"))).toBe("/dst");
    expect(targetPath({ ...directory, path: "/" }, place("directory"))).toBe("/dst");
  });

  test.each([
    ["a directory onto a file", directory, place("file"), "cannot be copied onto a file"],
    [
      "a file that is named as a directory",
      { ...file, path: "/src/name/" },
      place("absent"),
      "not a directory",
    ],
    ["a file into a directory that is not there", file, place("absent", "/dst/"), "no such directory"],
    ["a file onto one that is named as a directory", file, place("file", "/dst/"), "not a directory"],
    ["anything where nothing is above", directory, place("absent", "/a/b", false), "above it does not exist"],
  ] as const)("%s is refused", (_, source, destination, why) => {
    expect(() => targetPath(source, destination)).toThrow(why);
  });
});
