import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { installToolbox } from "../../../src/toolbox/install.ts";

/** A host with a program to be installed. */
function hostWith(content: string) {
  const root = mkdtempSync(join(tmpdir(), "toolbox-"));
  onTestFinished(() => rmSync(root, { recursive: true }));
  const program = join(root, "built");
  const directory = join(root, "state/toolbox");
  const build = (text: string) => writeFileSync(program, text);
  build(content);
  const install = () => installToolbox({ program, directory, volumeOf: (version) => `v-${version}` });
  return { directory, program, build, install };
}

const versionOf = (content: string) => createHash("sha256").update(content).digest("hex").slice(0, 16);
const modeOf = (path: string) => statSync(path).mode & 0o7777;

test("a version is the program and an empty directory, readable by all whatever the umask is", () => {
  const { directory, install } = hostWith("one");
  const before = process.umask(0o077);
  const toolbox = install();
  process.umask(before);
  const place = join(directory, versionOf("one"));
  expect(toolbox.version()).toBe(versionOf("one"));
  expect(toolbox.problem()).toBeUndefined();
  expect(readdirSync(place).toSorted()).toEqual(["run", "toolbox"]);
  expect(readdirSync(join(place, "run"))).toEqual([]);
  expect([place, join(place, "toolbox"), join(place, "run")].map(modeOf)).toEqual([0o755, 0o755, 0o700]);
  const { dev, ino } = statSync(place);
  expect(toolbox.at(versionOf("one"))).toEqual({
    volume: `v-${versionOf("one")}`,
    source: place,
    identity: { device: dev, inode: ino },
  });
  expect(readdirSync(directory)).toEqual([versionOf("one")]);
});

test("what is there already and as it was is left alone", () => {
  const { directory, install } = hostWith("one");
  install();
  const file = join(directory, versionOf("one"), "toolbox");
  const { ino, mtimeMs } = statSync(file);
  install();
  expect(statSync(file)).toMatchObject({ ino, mtimeMs });
});

test.each<readonly [string, (file: string) => void]>([
  ["changed", (file) => writeFileSync(file, "other")],
  ["gone", (file) => rmSync(file)],
  ["not to be executed", (file) => chmodSync(file, 0o644)],
])("a program that is %s is put back, in the same directory", (_, spoil) => {
  const { directory, install } = hostWith("one");
  const { identity } = install().at(versionOf("one"));
  const file = join(directory, versionOf("one"), "toolbox");
  spoil(file);
  const again = install();
  expect(readFileSync(file, "utf8")).toBe("one");
  expect(modeOf(file)).toBe(0o755);
  expect(again.at(versionOf("one")).identity).toEqual(identity);
});

test("what an end in the middle left behind is in nobody's way", () => {
  const { directory, install } = hostWith("one");
  mkdirSync(join(directory, versionOf("one")), { recursive: true });
  writeFileSync(join(directory, ".new"), "hal");
  expect(install().problem()).toBeUndefined();
  expect(readFileSync(join(directory, versionOf("one"), "toolbox"), "utf8")).toBe("one");
});

test("older versions stay while somebody has them, and what is no version stays", () => {
  const { directory, build, install } = hostWith("one");
  install();
  build("two");
  install();
  build("three");
  const toolbox = install();
  mkdirSync(join(directory, "notes"));
  toolbox.tidy((version) => version === versionOf("one"));
  const left = [versionOf("one"), versionOf("three"), "notes"];
  expect(readdirSync(directory).toSorted()).toEqual(left.toSorted());
  expect(toolbox.at(versionOf("one")).source).toBe(join(directory, versionOf("one")));
});

test("without the program, or without a place for it, there is none, and why", () => {
  const { directory, program, install } = hostWith("one");
  rmSync(program);
  expect(install().version()).toBeUndefined();
  expect(install().problem()).toContain("ENOENT");
  writeFileSync(program, "one");
  mkdirSync(join(directory, ".."), { recursive: true });
  writeFileSync(directory, "");
  expect(install().problem()).toMatch(/EEXIST|ENOTDIR/);
  expect(existsSync(directory)).toBe(true);
});

test("a version that is gone, or never was, is an error; the daemon's own is a problem", () => {
  const { directory, install } = hostWith("one");
  const toolbox = install();
  for (const version of ["0000000000000000", "..", "", "../built"])
    expect(() => toolbox.at(version)).toThrow(expect.objectContaining({ reason: "HARDENING_MISMATCH" }));
  rmSync(join(directory, versionOf("one")), { recursive: true });
  expect(toolbox.problem()).toContain(versionOf("one"));
});
