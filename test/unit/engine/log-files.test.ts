import { readdirSync, readlinkSync } from "node:fs";
import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { readLogFiles } from "../../../src/engine/log-files.ts";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = join(await mkdtemp(join(tmpdir(), "log-files-")), "container");
  await mkdir(directory);
  path = join(directory, "x-json.log");
});
afterEach(() => rm(join(directory, ".."), { recursive: true, force: true }));

const kept = 4;

/** As the engine does it. */
async function rotate(): Promise<void> {
  for (let age = kept - 2; age >= 1; age -= 1)
    await rename(`${path}.${age}`, `${path}.${age + 1}`).catch(() => undefined);
  await rename(path, `${path}.1`);
  await writeFile(path, "");
}
const write = (...lines: readonly (number | string)[]) =>
  appendFile(path, lines.map((one) => `${one}\n`).join(""));

async function readAll(): Promise<readonly string[]> {
  const lines: string[] = [];
  for await (const part of readLogFiles(path, { follow: false }))
    if (part.kind === "lines") lines.push(...part.lines.map(String));
  return lines;
}

/** Follows, and notes what is told. */
function follower() {
  const told: string[] = [];
  const ending = new AbortController();
  const done = (async () => {
    for await (const part of readLogFiles(path, { follow: true, signal: ending.signal }))
      told.push(...(part.kind === "lines" ? part.lines.map(String) : [part.kind]));
  })();
  done.catch(() => undefined);
  return { told, done, abort: () => ending.abort() };
}

describe("who does not follow", () => {
  test("is told all files, the oldest first, without their ends of lines", async () => {
    await write(1, 2);
    await rotate();
    await write(3);
    await rotate();
    await write(4);
    expect(await readAll()).toEqual(["1", "2", "3", "4"]);
  });

  test("is told nothing of a log that is not there", async () => {
    await rm(directory, { recursive: true });
    expect(await readAll()).toEqual([]);
  });

  test("is told lines over any size of chunks, but none longer than any of the engine's, and none that has no end yet", async () => {
    const long = "x".repeat(200_000);
    await write(long, "y".repeat(300_000), "z");
    await appendFile(path, "not yet");
    expect(await readAll()).toEqual([long, "z"]);
  });
});

describe("who follows", () => {
  test("is told what is written later, a line at its end, over rotations, until the log is removed", async () => {
    await write(1);
    const { told, done } = follower();
    await expect.poll(() => told).toEqual(["1", "end"]);
    await appendFile(path, "2");
    await appendFile(path, "3\n");
    await expect.poll(() => told).toEqual(["1", "end", "23"]);
    await rotate();
    await write(4);
    await expect.poll(() => told.at(-1)).toBe("4");
    await write(5);
    await rotate();
    await write(6);
    await expect.poll(() => told.at(-1)).toBe("6");
    await rm(directory, { recursive: true });
    await done;
    expect(told).toEqual(["1", "end", "23", "4", "5", "6"]);
  });

  test("is told what was written right before the log was removed", async () => {
    await write(1);
    const { told, done } = follower();
    await expect.poll(() => told).toEqual(["1", "end"]);
    await write(2);
    await rm(directory, { recursive: true });
    await done;
    expect(told).toEqual(["1", "end", "2"]);
  });

  test("and reads slowly is told of a gap only when the file that it reads was dropped", async () => {
    await write(0);
    const ending = new AbortController();
    const parts = readLogFiles(path, { follow: true, signal: ending.signal });
    const next = async () => {
      const { value } = await parts.next();
      return value?.kind === "lines" ? value.lines.map(String) : [value?.kind];
    };
    expect([...(await next()), ...(await next())]).toEqual(["0", "end"]);
    for (let line = 1; line < kept; line += 1) {
      await rotate();
      await write(line);
    }
    expect([...(await next()), ...(await next()), ...(await next())], "all are there still").toEqual([
      "1",
      "2",
      "3",
    ]);
    for (let line = 4; line < 4 + kept; line += 1) {
      await rotate();
      await write(line);
    }
    expect([...(await next()), ...(await next())]).toEqual(["gap", "4"]);
    ending.abort();
    await expect(parts.next()).rejects.toThrow("abort");
  });

  test("and is let go of leaves no file open", async () => {
    await write(1);
    const ending = new AbortController();
    const parts = readLogFiles(path, { follow: true, signal: ending.signal });
    await parts.next();
    ending.abort();
    await expect.poll(() => openFilesIn(directory)).toBe(0);
  });

  test("ends when it is told to while nothing is written", async () => {
    await write(1);
    const { told, done, abort } = follower();
    await expect.poll(() => told).toEqual(["1", "end"]);
    abort();
    await expect(done).rejects.toThrow("abort");
  });
});

function openFilesIn(where: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(where);
    } catch {
      return false;
    }
  }).length;
}
