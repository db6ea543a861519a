// What a watch tells: everything in order, or that something is missing.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Update, watchDirectory } from "../../../src/files/watch.ts";
import { type Inside, id, inside, mounted, uid } from "./fixture.ts";

const short = (update: Update, home: string) =>
  update.kind === "change"
    ? `${update.type} ${update.path.slice(home.length + 1)}${update.isDirectory ? "/" : ""}`
    : update.kind;

/** A watch of the home directory that is in place. `until` reads on to an update, and returns all before it and itself. */
async function watching({ files, home }: Inside, recursive: boolean, directory = home) {
  const controller = new AbortController();
  onTestFinished(() => controller.abort());
  const { signal } = controller;
  const updates = files.watch(id, directory, { recursive, signal });
  const next = async () => {
    const { value } = await updates.next();
    return value === undefined ? "end" : short(value, home);
  };
  expect(await next()).toBe("ready");
  const until = async (last: string) => {
    const told: string[] = [];
    while (told.at(-1) !== last) told.push(await next());
    return told;
  };
  return { until, next, controller };
}

const sh = (home: string, script: string) =>
  execFileSync("sh", ["-ec", script], { cwd: home, uid, gid: uid, stdio: "pipe" });

describe("a watch", () => {
  test("tells what is made, written, changed, moved and removed, in order", async () => {
    const world = await inside();
    const { until } = await watching(world, false);
    sh(
      world.home,
      "echo x >file; chmod 600 file; mv file other; rm other; mkdir dir; ln -s x link; rmdir dir",
    );
    expect(await until("removed dir/")).toEqual([
      "created file",
      "written file",
      "attributes file",
      "removed file",
      "created other",
      "removed other",
      "created dir/",
      "created link",
      "removed dir/",
    ]);
  });

  test("tells of a file that this service wrote under its name alone", async () => {
    const world = await inside();
    const { until } = await watching(world, true);
    const target = { path: join(world.home, "file"), createsOnly: false, etag: "", parents: false };
    const one = async function* () {
      yield Buffer.from("x");
    };
    await world.files.write(id, target, one(), {});
    await world.files.write(id, target, one(), {});
    sh(world.home, "mkdir end");
    const told = await until("created end/");
    expect(
      told.filter((line) => line !== "created file" && line !== "written file" && line !== "attributes file"),
    ).toEqual(["created end/"]);
    expect(told.filter((line) => line === "created file")).toHaveLength(2);
  });

  test("is of one directory, or of all below it, also of those that are made or moved there later", async () => {
    const world = await inside();
    sh(world.home, "mkdir -p a/b outside/x; echo >outside/x/deep");
    const { home } = world;
    const flat = await watching(world, false);
    const deep = await watching(world, true);
    sh(
      home,
      "echo >a/b/file; mkdir new; sleep 0.05; echo >new/file; mv outside/x a/x; sleep 0.05; echo >a/x/later; mv a/x a/y; sleep 0.05; echo >a/y/last; mkdir end",
    );
    expect(await flat.until("created end/")).toEqual(["created new/", "created end/"]);
    const told = await deep.until("created end/");
    for (const line of [
      "created a/b/file",
      "written a/b/file",
      "created new/",
      "created new/file",
      "removed outside/x/",
      "created a/x/",
      "created a/x/deep",
      "created a/x/later",
      "removed a/x/",
      "created a/y/",
      "created a/y/later",
      "written a/y/last",
    ])
      expect(told).toContain(line);
    expect(told.filter((line) => line.includes("a/x/")).at(-1)).toBe("removed a/x/");
  });

  test("tells what appeared in a new directory before it was watched", async () => {
    const world = await inside();
    const { until } = await watching(world, true);
    for (let round = 0; round < 20; round += 1)
      sh(world.home, `mkdir -p d${round}/e/f; echo >d${round}/e/f/file`);
    sh(world.home, "mkdir end");
    const told = await until("created end/");
    for (let round = 0; round < 20; round += 1) expect(told).toContain(`created d${round}/e/f/file`);
  });

  test("whose reader is slow drops changes, says so, and goes on", async () => {
    const world = await inside();
    const { home } = world;
    const name = "x".repeat(200);
    const many = join(home, "many");
    mounted(many, "size=64m,mode=1777");
    const { until, next } = await watching(world, true);
    for (let index = 0; index < 12_000; index += 1) writeFileSync(join(many, `${name}${index}`), "");
    const told = await until("overflow");
    expect(told.length).toBeGreaterThan(1_000);
    expect(told.length).toBeLessThan(24_000);
    mkdirSync(join(home, "after"));
    while ((await next()) !== "created after/");
    mkdirSync(join(home, "after/below"));
    while ((await next()) !== "created after/below/");
  });

  test("ends with FILE_NOT_FOUND when its directory is removed", async () => {
    const world = await inside();
    sh(world.home, "mkdir gone");
    const { next } = await watching(world, true, join(world.home, "gone"));
    sh(world.home, "rmdir gone");
    expect(await next()).toBe("removed gone/");
    await expect(next()).rejects.toMatchObject({ reason: "FILE_NOT_FOUND" });
  });

  test("refuses what is no directory, or is not there", async () => {
    const { files, home } = await inside();
    writeFileSync(join(home, "file"), "");
    const watch = (name: string) => files.watch(id, join(home, name), { recursive: true }).next();
    await expect(watch("file")).rejects.toMatchObject({ reason: "FILE_WRONG_TYPE" });
    await expect(watch("none")).rejects.toMatchObject({ reason: "FILE_NOT_FOUND" });
  });

  test("is refused for more than 8,192 directories", async () => {
    const { files, home } = await inside();
    const many = join(home, "many");
    mounted(many, "size=64m,mode=1777");
    for (let index = 0; index < 8_192; index += 1) mkdirSync(join(many, `${index}`));
    await expect(files.watch(id, many, { recursive: true }).next()).rejects.toMatchObject({
      reason: "FILE_NO_SPACE",
    });
    expect(await files.watch(id, many, { recursive: false }).next()).toMatchObject({
      value: { kind: "ready" },
    });
  });

  test("ends inside when the caller goes", async () => {
    const world = await inside();
    const { controller } = await watching(world, true);
    await expect.poll(world.workers).toBe(1);
    controller.abort();
    await expect.poll(world.workers).toBe(0);
  });

  test("says that it lives while nothing happens", async () => {
    const { link, home } = await inside();
    const updates = watchDirectory(link, id, home, { recursive: false, everyMs: 20 });
    await updates.next();
    expect((await updates.next()).value).toEqual({ kind: "quiet" });
    expect((await updates.next()).value).toEqual({ kind: "quiet" });
    mkdirSync(join(home, "x"));
    await sleep(10);
    expect((await updates.next()).value).toMatchObject({ kind: "change" });
    await updates.return();
  });
});
