// What every backend of workspaces promises, on real file systems: limits that the kernel holds, nothing lost, nothing left.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Backend, BackendKind, Space } from "../../src/workspace/backend/backend.ts";
import { createBtrfs } from "../../src/workspace/backend/btrfs.ts";
import { type Home, openHome } from "../../src/workspace/backend/home.ts";
import { createLoopImage } from "../../src/workspace/backend/loop-image.ts";
import { mountOf, mounts } from "../../src/workspace/backend/mount-table.ts";
import { chooseBackend, openBackend, probeAll } from "../../src/workspace/backend/probe.ts";
import { type RunTool, runTool } from "../../src/workspace/backend/tool.ts";
import {
  type FileSystem,
  fileSystemObstacle,
  loopFilesBelow,
  mountsBelow,
  openFileSystem,
  unmountBelow,
} from "../harness/file-system.ts";

/** After one program is nearly before the next: both of each are tried only where there is time. */
const momentsOf = (nth: number): readonly ("before" | "after")[] => {
  if (process.env["SANDBOXD_TEST_EVERY_STEP"] !== undefined) return ["before", "after"];
  return [nth % 2 === 1 ? "before" : "after"];
};

const mebibyte = 1024 ** 2;
const uid = 20_001;

interface Bench {
  readonly home: Home;
  readonly backend: Backend;
  /** As after the daemon's end. */
  again(run?: RunTool): Promise<Backend>;
  /** Nothing of any space is left: resolves to what is. */
  left(): Promise<readonly string[]>;
  close(): Promise<void>;
}

const makers = { LOOP_IMAGE: createLoopImage, BTRFS: createBtrfs } as const;

async function openBench(kind: keyof typeof makers): Promise<Bench> {
  const disk: FileSystem | undefined = kind === "BTRFS" ? openFileSystem("btrfs") : undefined;
  const base = disk?.directory ?? (await mkdtemp(join(tmpdir(), "spaces-")));
  const directory = join(base, "workspaces");
  const isMounted = kind === "BTRFS";
  const close = async () => {
    thawBelow(directory);
    unmountBelow(directory);
    disk?.close();
    await rm(base, { recursive: true, force: true });
  };
  try {
    const again = async (run: RunTool = runTool) =>
      makers[kind]({ home: await openHome(directory, { run: runTool, isMounted }), run });
    const home = await openHome(directory, { run: runTool, isMounted });
    return { home, backend: await again(), again, left: () => leftIn(directory, kind), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** So that a test that failed leaves nothing that waits for ever. */
function thawBelow(directory: string): void {
  for (const path of mountsBelow(directory)) spawnSync("fsfreeze", ["--unfreeze", path]);
}

async function leftIn(directory: string, kind: BackendKind): Promise<readonly string[]> {
  const mounted = mountsBelow(directory).filter((path) => path !== directory);
  const files = await Promise.all(
    (await readdir(directory)).map(async (one) =>
      (await readdir(join(directory, one))).map((name) => join(one, name)),
    ),
  );
  const left = [...mounted, ...loopFilesBelow(directory), ...files.flat()];
  return kind === "BTRFS" ? [...left, ...(await subvolumesLeft(directory))] : left;
}

/** The kernel takes apart what was removed after a commit, at its leisure. */
async function subvolumesLeft(directory: string): Promise<readonly string[]> {
  for (const end = Date.now() + 10_000; ; ) {
    await runTool("btrfs", ["filesystem", "sync", directory]);
    const listed = await runTool("btrfs", ["qgroup", "show", "--raw", directory]);
    const left = listed.split("\n").filter((line) => /^0\/(?!5 )/.test(line));
    if (left.length === 0 || Date.now() > end) return left;
    await sleep(50);
  }
}

/** The kernel's files about the quotas of the file system that a directory is on. */
async function groupsOf(directory: string): Promise<string> {
  const uuid = /uuid: (\S+)/.exec(await runTool("btrfs", ["filesystem", "show", directory]))?.[1];
  return `/sys/fs/btrfs/${uuid}/qgroups`;
}

/** Runs a script in a directory, as the tenant's user. Its parents may be closed to that user, as they are on a host. */
function asUser(cwd: string, script: string): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync("sh", ["-c", script], {
    cwd,
    uid,
    gid: uid,
    encoding: "utf8",
  });
  return { status, output: stdout + stderr };
}

describe.skipIf(fileSystemObstacle !== undefined).each(["LOOP_IMAGE", "BTRFS"] as const)("%s", (kind) => {
  let bench: Bench;
  let made = 0;

  beforeAll(async () => {
    bench = await openBench(kind);
  });

  afterAll(() => bench?.close());

  const spaceOf = (name: string, bytes: number, inodes = 2_000): Space => ({
    name,
    uid,
    projectId: 1,
    limits: bench.backend.boundsInodes ? { bytes, inodes } : { bytes },
  });

  const fresh = (bytes = 32 * mebibyte, inodes?: number): Space => {
    made += 1;
    return spaceOf(`space-${made}`, bytes, inodes);
  };

  const projectsOf = (space: Space) => join(bench.home.contentOf(space.name), "projects");

  afterEach(async () => {
    for (const name of await bench.backend.list()) await bench.backend.remove(spaceOf(name, mebibyte));
  });

  test("a space has its layout, which is its user's, below folders that are root's", async () => {
    const space = fresh();
    await bench.backend.create(space);
    const { path, identity } = await bench.backend.ready(space);
    expect(path).toBe(bench.home.contentOf(space.name));
    expect(readdirSync(path).toSorted()).toEqual(["cache", "projects", "tmp"]);
    for (const one of [".", "projects", "tmp", "cache"]) {
      const found = statSync(join(path, one));
      expect([one, found.uid, found.gid, found.mode & 0o7777]).toEqual([one, uid, uid, 0o700]);
    }
    const found = statSync(path);
    expect(identity).toEqual({ device: found.dev, inode: found.ino });
    for (
      let above = join(path, "..");
      above.length >= bench.home.directory.length;
      above = join(above, "..")
    ) {
      const { uid: owner, mode } = statSync(above);
      expect([above, owner, mode & 0o7777]).toEqual([above, 0, 0o711]);
    }
  });

  test("nothing in a space is a device, or runs as another user", async () => {
    const space = fresh();
    await bench.backend.create(space);
    const mount = mountOf(await mounts(), bench.home.contentOf(space.name));
    expect(mount?.options).toEqual(expect.arrayContaining(["nosuid", "nodev", "rw"]));
    await runTool("mknod", [join(projectsOf(space), "null"), "c", "1", "3"]);
    await expect(readFile(join(projectsOf(space), "null"))).rejects.toThrow("EACCES");
  });

  test("its user can write as many bytes as it has, and not one more", async () => {
    const space = fresh(48 * mebibyte);
    await bench.backend.create(space);
    const { status, output } = asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=64k 2>&1");
    expect(status).not.toBe(0);
    expect(output).toMatch(/No space left on device|Disk quota exceeded/);
    const { size, blocks } = statSync(join(projectsOf(space), "big"));
    expect(Math.max(size, blocks * 512)).toBeLessThanOrEqual(space.limits.bytes);
    expect(size).toBeGreaterThan(0.8 * space.limits.bytes);
    // what it holds can be removed even then
    expect(asUser(projectsOf(space), "rm big && echo more >small").output).toBe("");
  });

  test("its user can make as many files as it has inodes for, and not one more", async ({ skip }) => {
    skip(!bench.backend.boundsInodes, "it bounds no inodes");
    const space = fresh(32 * mebibyte, 1_000);
    await bench.backend.create(space);
    const { output } = asUser(
      projectsOf(space),
      "i=0; while (: >f$i) 2>/dev/null; do i=$((i + 1)); done; echo $i",
    );
    const inodes = Number(output) + 4;
    expect(inodes).toBeLessThanOrEqual(1_000);
    // in a group of 128 MiB, 15 may be given up
    expect(inodes).toBeGreaterThanOrEqual(1_000 - 15);
    expect((await bench.backend.usage(space)).inodes).toBe(inodes);
  });

  test("what it holds is told, and grows with what is written", async () => {
    const space = fresh();
    await bench.backend.create(space);
    await runTool("sync", ["-f", projectsOf(space)]);
    const empty = await bench.backend.usage(space);
    expect(empty.bytes).toBeLessThan(256 * 1_024);
    asUser(projectsOf(space), "dd if=/dev/urandom of=eight bs=1M count=8 && touch one two");
    await runTool("sync", ["-f", projectsOf(space)]);
    const full = await bench.backend.usage(space);
    expect(full.bytes - empty.bytes).toBeGreaterThanOrEqual(8 * mebibyte);
    expect(full.bytes - empty.bytes).toBeLessThan(8.2 * mebibyte);
    expect(full.inodes).toBe(bench.backend.boundsInodes ? 7 : undefined);
  });

  test("a space grows, and keeps what it holds", async () => {
    const space = fresh(16 * mebibyte, 500);
    await bench.backend.create(space);
    asUser(projectsOf(space), "echo kept >file && ln file again && ln -s file link && mkdir -m 2750 d");
    const larger = spaceOf(space.name, 64 * mebibyte, 4_000);
    await bench.backend.resize(larger, { isInUse: false });
    await bench.backend.ready(larger);
    const seen = asUser(projectsOf(space), "cat link; stat -c '%h %u %a' again; stat -c %a d");
    expect(seen.output).toBe(`kept\n2 ${uid} 644\n2750\n`);
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=40").status).toBe(0);
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=more bs=1M count=40").status).not.toBe(0);
  });

  test("a space shrinks to what it may have, and is held to that", async () => {
    const space = fresh(64 * mebibyte, 4_000);
    await bench.backend.create(space);
    asUser(projectsOf(space), "echo kept >file");
    const smaller = spaceOf(space.name, 16 * mebibyte, 500);
    await bench.backend.resize(smaller, { isInUse: false });
    await bench.backend.ready(smaller);
    expect(asUser(projectsOf(space), "cat file").output).toBe("kept\n");
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=20").status).not.toBe(0);
  });

  test("a space never shrinks below what it holds, and is as before then", async () => {
    const space = fresh(64 * mebibyte);
    await bench.backend.create(space);
    asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=30");
    const before = readFileSync(join(projectsOf(space), "big"));
    const refusal = bench.backend.resize(spaceOf(space.name, 16 * mebibyte), { isInUse: false });
    await expect(refusal).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    await expect(refusal).rejects.toThrow(/holds 3\d{7} bytes.*cannot have 16777216 bytes/);
    await bench.backend.ready(space);
    expect(readFileSync(join(projectsOf(space), "big")).equals(before)).toBe(true);
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=more bs=1M count=20").status).toBe(0);
  });

  test("limits change while a sandbox runs with it only where the backend says so", async () => {
    const space = fresh();
    await bench.backend.create(space);
    const resize = bench.backend.resize(spaceOf(space.name, 64 * mebibyte), { isInUse: true });
    if (bench.backend.resizesLive) await resize;
    else await expect(resize).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    // and limits that it has already are none to change
    const limits = spaceOf(space.name, (bench.backend.resizesLive ? 64 : 32) * mebibyte);
    await bench.backend.resize(limits, { isInUse: true });
  });

  test("a snapshot keeps what a space held, however it changes", async () => {
    const space = fresh();
    await bench.backend.create(space);
    asUser(projectsOf(space), "echo first >file; dd if=/dev/urandom of=big bs=1M count=5");
    const counted = await bench.backend.snapshot(space, "before");
    expect(counted.bytes).toBeGreaterThanOrEqual(5 * mebibyte);
    expect(counted.bytes).toBeLessThanOrEqual(space.limits.bytes);
    // done before, it is not made anew
    asUser(projectsOf(space), "echo second >file; touch -d 2001-02-03T04:05:06.789 old");
    expect(await bench.backend.snapshot(space, "before")).toMatchObject({ bytes: counted.bytes });
    await bench.backend.snapshot(space, "after");

    const opened = await bench.backend.openSnapshot(space, "before");
    expect(readFileSync(join(opened.path, "projects/file"), "utf8")).toBe("first\n");
    await expect(writeFile(join(opened.path, "projects/file"), "")).rejects.toThrow("EROFS");
    await opened.close();

    await bench.backend.restore(space, "before");
    await bench.backend.ready(space);
    expect(asUser(projectsOf(space), "cat file; ls").output).toBe("first\nbig\nfile\n");
    await bench.backend.restore(space, "after");
    await bench.backend.ready(space);
    expect(asUser(projectsOf(space), "cat file; stat -c %Y.%y old").output).toMatch(
      /^second\n981173106.*\.789/,
    );
    // and it is held to its limits as before
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=more bs=1M count=32").status).not.toBe(0);

    await bench.backend.removeSnapshot(space, "before");
    await bench.backend.removeSnapshot(space, "before");
    const gone = { reason: "WORKSPACE_UNAVAILABLE" };
    await expect(bench.backend.openSnapshot(space, "before")).rejects.toMatchObject(gone);
    await expect(bench.backend.restore(space, "before")).rejects.toMatchObject(gone);
  });

  test("a snapshot that holds more than a space may have now is not restored", async () => {
    const space = fresh(64 * mebibyte);
    await bench.backend.create(space);
    asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=30");
    await bench.backend.snapshot(space, "large");
    asUser(projectsOf(space), "rm big; echo small >file");
    const smaller = spaceOf(space.name, 16 * mebibyte);
    await bench.backend.resize(smaller, { isInUse: false });
    await expect(bench.backend.restore(smaller, "large")).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
    });
    await bench.backend.ready(smaller);
    expect(asUser(projectsOf(space), "cat file").output).toBe("small\n");
    await bench.backend.resize(space, { isInUse: false });
    await bench.backend.restore(space, "large");
    await bench.backend.ready(space);
    expect(asUser(projectsOf(space), "ls").output).toBe("big\n");
  });

  test("after a reboot, a space is there again, within its limits", async () => {
    const space = fresh();
    await bench.backend.create(space);
    asUser(projectsOf(space), "echo kept >file");
    unmountBelow(bench.home.directory);
    expect(loopFilesBelow(bench.home.directory)).toEqual([]);
    const backend = await bench.again();
    expect(await backend.list()).toEqual([space.name]);
    await backend.ready(space);
    expect(asUser(projectsOf(space), "cat file").output).toBe("kept\n");
    const mount = mountOf(await mounts(), bench.home.contentOf(space.name));
    expect(mount?.options).toEqual(expect.arrayContaining(["nosuid", "nodev"]));
    expect(asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=40").status).not.toBe(0);
  });

  test("a daemon that starts again mounts nothing twice", async () => {
    const space = fresh();
    await bench.backend.create(space);
    const before = mountsBelow(bench.home.directory);
    for (let life = 0; life < 3; life += 1) await (await bench.again()).ready(space);
    expect(mountsBelow(bench.home.directory)).toEqual(before);
  });

  test("removal leaves nothing of a space, and can be repeated", async () => {
    const space = fresh();
    await bench.backend.create(space);
    await bench.backend.snapshot(space, "one");
    await bench.backend.snapshot(space, "two");
    await bench.backend.openSnapshot(space, "one");
    await bench.backend.remove(space);
    await bench.backend.remove(space);
    expect(await bench.backend.list()).toEqual([]);
    expect(await bench.left()).toEqual([]);
  });

  test("closing leaves what spaces hold, and no mount", async () => {
    const space = fresh();
    await bench.backend.create(space);
    asUser(projectsOf(space), "echo kept >file");
    await bench.backend.close();
    expect(mountsBelow(bench.home.directory)).toEqual([]);
    const backend = await bench.again();
    await backend.ready(space);
    expect(asUser(projectsOf(space), "cat file").output).toBe("kept\n");
  });

  test("of a space that is gone, nothing can be used", async () => {
    const space = fresh();
    const gone = { reason: "WORKSPACE_UNAVAILABLE" };
    await expect(bench.backend.ready(space)).rejects.toMatchObject(gone);
    await expect(bench.backend.snapshot(space, "one")).rejects.toMatchObject(gone);
    await expect(bench.backend.resize(space, { isInUse: false })).rejects.toMatchObject(gone);
    await bench.backend.remove(space);
    await bench.backend.removeSnapshot(space, "one");
    expect(await bench.left()).toEqual([]);
  });

  test("fifty spaces are made at once, and each is held by itself", async () => {
    const spaces = Array.from({ length: 50 }, () => fresh(12 * mebibyte, 200));
    await Promise.all(spaces.map((space) => bench.backend.create(space)));
    expect(await bench.backend.list()).toEqual(spaces.map(({ name }) => name).toSorted());
    for (const space of spaces.slice(0, 3)) {
      expect(asUser(projectsOf(space), "dd if=/dev/urandom of=big bs=1M count=12").status).not.toBe(0);
    }
    expect(
      asUser(projectsOf(spaces.at(-1) ?? fresh()), "dd if=/dev/urandom of=big bs=1M count=4").status,
    ).toBe(0);
    await Promise.all(spaces.map((space) => bench.backend.remove(space)));
    expect(await bench.left()).toEqual([]);
  });

  test("a thousand readings of what is used cost less than a second of a processor", async () => {
    const spaces = Array.from({ length: 10 }, () => fresh(12 * mebibyte, 200));
    for (const space of spaces) await bench.backend.create(space);
    const before = process.cpuUsage();
    for (let round = 0; round < 100; round += 1) {
      await Promise.all(spaces.map((space) => bench.backend.usage(space)));
    }
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(1);
  });

  describe("a daemon that is killed", () => {
    const steps: Readonly<Record<string, (backend: Backend, space: Space) => Promise<unknown>>> = {
      create: (backend, space) => backend.create(space),
      snapshot: (backend, space) => backend.snapshot(space, "new"),
      restore: (backend, space) => backend.restore(space, "old"),
      grow: (backend, space) => backend.resize(spaceOf(space.name, 24 * mebibyte, 300), { isInUse: false }),
      shrink: (backend, space) => backend.resize(spaceOf(space.name, 12 * mebibyte, 150), { isInUse: false }),
      remove: (backend, space) => backend.remove(space),
    };

    /** What holds of each step once it was done again. */
    async function assertDone(step: string, backend: Backend, space: Space): Promise<void> {
      if (step === "remove") return expect(await backend.list()).toEqual([]);
      const limits = {
        grow: spaceOf(space.name, 24 * mebibyte, 300),
        shrink: spaceOf(space.name, 12 * mebibyte, 150),
      };
      await backend.ready(limits[step as keyof typeof limits] ?? space);
      const expected = { create: "", restore: "old\n" }[step] ?? "new\nold\n";
      expect(asUser(projectsOf(space), "ls").output).toBe(expected);
      if (step !== "snapshot") return;
      const opened = await backend.openSnapshot(space, "new");
      expect(readdirSync(join(opened.path, "projects")).toSorted()).toEqual(["new", "old"]);
      await opened.close();
    }

    async function prepare(step: string): Promise<Space> {
      const space = fresh(16 * mebibyte, 200);
      if (step === "create") return space;
      await bench.backend.create(space);
      asUser(projectsOf(space), "touch old");
      await bench.backend.snapshot(space, "old");
      asUser(projectsOf(space), "touch new");
      return space;
    }

    /** Runs a step that ends, as by a kill, at its nth program. Resolves to whether it came that far. */
    async function killed(
      step: string,
      space: Space,
      nth: number,
      when: "before" | "after",
    ): Promise<boolean> {
      const never = new Promise<never>(() => {});
      // what it runs to be opened is not of the step
      let count = -Infinity;
      let stop = () => {};
      const stopped = new Promise<boolean>((resolve) => {
        stop = () => resolve(true);
      });
      const backend = await bench.again(async (...call) => {
        count += 1;
        if (count === nth && when === "before") stop();
        if (count >= nth && when === "before") return never;
        const output = await runTool(...call);
        if (count < nth) return output;
        stop();
        return never;
      });
      count = 0;
      return Promise.race([stopped, steps[step]?.(backend, space).then(() => false) ?? never]);
    }

    test.each(Object.keys(steps))(
      "at any program of %s: it is finished, or removed, by the next",
      async (step) => {
        let isReached = true;
        for (let nth = 1; isReached; nth += 1) {
          for (const when of momentsOf(nth)) {
            const space = await prepare(step);
            isReached = await killed(step, space, nth, when);
            const next = await bench.again();
            await steps[step]?.(next, space);
            await assertDone(step, next, space);
            await next.remove(space);

            const other = await prepare(step);
            await killed(step, other, nth, when);
            await (await bench.again()).remove(other);
            expect([nth, when, await bench.left()]).toEqual([nth, when, []]);
          }
        }
      },
      180_000,
    );

    test.each(Object.keys(steps).filter((step) => step !== "remove"))(
      "a program that fails in %s leaves the space as it was, or none",
      async (step) => {
        let isReached = true;
        for (let nth = 1; isReached; nth += 1) {
          const space = await prepare(step);
          let count = -Infinity;
          const backend = await bench.again((...call) => {
            count += 1;
            return count === nth ? Promise.reject(new Error("no such luck")) : runTool(...call);
          });
          count = 0;
          const outcome = await steps[step]?.(backend, space).then(
            () => undefined,
            (error: unknown) => error,
          );
          isReached = count >= nth;
          if (step === "create" && outcome !== undefined) {
            expect([nth, outcome, await bench.left()]).toMatchObject([nth, { reason: "INTERNAL" }, []]);
          } else if (outcome !== undefined) {
            await bench.backend.ready(space).catch(() => steps[step]?.(bench.backend, space));
            expect(asUser(projectsOf(space), "ls").output).toMatch(/^(new\n)?old\n$/);
          }
          await bench.backend.remove(space);
        }
      },
      120_000,
    );
  });
});

describe.skipIf(fileSystemObstacle !== undefined)("a file system in a file", () => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await openBench("LOOP_IMAGE");
  });
  afterAll(() => bench?.close());

  const space: Space = { name: "one", uid, projectId: 1, limits: { bytes: 32 * mebibyte, inodes: 500 } };
  afterEach(() => bench.backend.remove(space));

  test("takes all its bytes of the host at once, and gives none back while it is there", async () => {
    await bench.backend.create(space);
    await bench.backend.ready(space);
    const image = join(bench.home.directory, "images/one.img");
    expect(statSync(image).blocks * 512).toBeGreaterThanOrEqual(space.limits.bytes);
    asUser(bench.home.contentOf("one"), "dd if=/dev/urandom of=big bs=1M count=10; rm big");
    spawnSync("fstrim", [bench.home.folderOf("one")]);
    expect(statSync(image).blocks * 512).toBeGreaterThanOrEqual(space.limits.bytes);
    await bench.backend.snapshot(space, "one");
    await bench.backend.restore(space, "one");
    expect(statSync(image).blocks * 512).toBeGreaterThanOrEqual(space.limits.bytes);
  });

  test("in use by a process of the host is neither removed nor made anew", async () => {
    await bench.backend.create(space);
    const larger = { ...space, limits: { bytes: 64 * mebibyte, inodes: 500 } };
    const before = process.cwd();
    process.chdir(bench.home.contentOf("one"));
    try {
      const inUse = { reason: "WORKSPACE_IN_USE" };
      await expect(bench.backend.remove(space)).rejects.toMatchObject(inUse);
      await expect(bench.backend.resize(larger, { isInUse: false })).rejects.toMatchObject(inUse);
    } finally {
      process.chdir(before);
    }
    await bench.backend.ready(space);
    expect(readdirSync(join(bench.home.directory, "images"))).toEqual(["one.img"]);
  });

  test("is removed though a program of the host was in it for a moment, as `df` is", async () => {
    await bench.backend.create(space);
    const held = await open(bench.home.contentOf("one"));
    const removed = bench.backend.remove(space);
    await sleep(100);
    await held.close();
    await removed;
    expect(await bench.left()).toEqual([]);
  });

  test("that another mount namespace still holds is neither removed nor made anew", async () => {
    await bench.backend.create(space);
    const holder = spawnSync(
      "unshare",
      ["--mount", "--propagation", "private", "sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!"],
      { encoding: "utf8" },
    );
    try {
      await expect(bench.backend.remove(space)).rejects.toMatchObject({ reason: "WORKSPACE_IN_USE" });
      await bench.backend.ready(space);
      expect(asUser(bench.home.contentOf("one"), "echo fine >file; cat file").output).toBe("fine\n");
    } finally {
      process.kill(Number(holder.stdout), "SIGKILL");
    }
  });

  /** Writes over two bytes of the image of a space that is not mounted. */
  async function damage(at: number): Promise<void> {
    unmountBelow(bench.home.directory);
    const file = await open(join(bench.home.directory, "images/one.img"), "r+");
    await file.write(Buffer.from([0x12, 0x34]), 0, 2, at);
    await file.close();
  }

  test("that was damaged is repaired where nothing is lost by it", async () => {
    await bench.backend.create(space);
    asUser(bench.home.contentOf("one"), "echo kept >file");
    // the checksum of the first group's description, without which the kernel mounts nothing
    await damage(4_096 + 30);
    await bench.backend.ready(space);
    expect(asUser(bench.home.contentOf("one"), "cat file").output).toBe("kept\n");
  });

  test("that was damaged beyond that is said to be unusable, and left as it is", async () => {
    await bench.backend.create(space);
    // what tells that it is a file system of this kind at all
    await damage(1_024 + 56);
    await expect(bench.backend.ready(space)).rejects.toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
    await expect(bench.backend.usage(space)).rejects.toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
    expect(await bench.left()).toEqual(["images/one.img", "spaces/one"]);
  });

  test("too small or too large to be one is refused with what it can be", async () => {
    for (const limits of [
      { bytes: mebibyte, inodes: 100 },
      { bytes: 32 * mebibyte, inodes: 3 },
      { bytes: 32 * mebibyte, inodes: 10_000_000 },
    ]) {
      const refusal = bench.backend.create({ ...space, limits });
      await expect(refusal).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    }
    expect(await bench.left()).toEqual([]);
  });

  test("for which the host has no room is refused, and leaves nothing", async () => {
    // a disk of its own: what there is of room is taken before it is found to be too little
    const disk = openFileSystem("btrfs");
    try {
      const directory = join(disk.directory, "workspaces");
      const home = await openHome(directory, { run: runTool, isMounted: false });
      const backend = await makers.LOOP_IMAGE({ home, run: runTool });
      const { bsize, bavail } = statfsSync(directory);
      const limits = { bytes: bsize * bavail + 1024 ** 3, inodes: 100_000 };
      const refusal = backend.create({ ...space, limits });
      await expect(refusal).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
      await expect(refusal).rejects.toThrow("No space left on device");
      expect(await leftIn(directory, "LOOP_IMAGE")).toEqual([]);
    } finally {
      disk.close();
    }
  });
});

describe.skipIf(fileSystemObstacle !== undefined)("a btrfs quota", () => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await openBench("BTRFS");
  });
  afterAll(() => bench?.close());

  const space: Space = { name: "one", uid, projectId: 1, limits: { bytes: 32 * mebibyte } };
  afterEach(() => bench.backend.remove(space));

  test("holds no inodes, and says so", async () => {
    const refusal = bench.backend.create({ ...space, limits: { ...space.limits, inodes: 10 } });
    await expect(refusal).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    expect(await bench.left()).toEqual([]);
  });

  test("is of what a restore that was cut off between its two renames put in place", async () => {
    await bench.backend.create(space);
    const folder = bench.home.folderOf("one");
    await writeFile(join(folder, "data/which"), "old");
    await runTool("btrfs", ["subvolume", "snapshot", join(folder, "data"), join(folder, "restoring")]);
    await writeFile(join(folder, "restoring/which"), "new");
    await rename(join(folder, "data"), join(folder, "replaced"));
    const backend = await bench.again();
    await backend.ready(space);
    expect(readFileSync(join(folder, "data/which"), "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["data"]);
    expect(asUser(join(folder, "data"), "dd if=/dev/urandom of=big bs=1M count=40").status).not.toBe(0);
  });

  test("that lost count is counted anew before a space is used", async () => {
    await bench.backend.create(space);
    const groups = await groupsOf(bench.home.directory);
    // what is shared with a snapshot, put into another group, is what the kernel loses count of
    await writeFile(join(bench.home.contentOf("one"), "file"), Buffer.alloc(mebibyte, "x"));
    await bench.backend.snapshot(space, "shared");
    const id = (await runTool("btrfs", ["inspect-internal", "rootid", bench.home.contentOf("one")])).trim();
    await runTool("btrfs", ["qgroup", "create", "1/1", bench.home.directory]);
    // its exit code says that a rescan is needed
    const change = (verb: "assign" | "remove") =>
      spawnSync("btrfs", ["qgroup", verb, "--no-rescan", `0/${id}`, "1/1", bench.home.directory]);
    change("assign");
    const file = join(groups, "inconsistent");
    expect(readFileSync(file, "utf8").trim()).toBe("1");
    await bench.backend.ready(space);
    expect(readFileSync(file, "utf8").trim()).toBe("0");
    // while the space is there: the kernel takes apart what is removed in its own time, and the other group is busy until then
    change("remove");
    await runTool("btrfs", ["qgroup", "destroy", "1/1", bench.home.directory]);
  });

  test("counts whatever is removed, however large", async () => {
    const groups = await groupsOf(bench.home.directory);
    expect(readFileSync(join(groups, "drop_subtree_threshold"), "utf8").trim()).toBe("8");
  });

  test("is set again if somebody took it away", async () => {
    await bench.backend.create(space);
    await runTool("btrfs", ["qgroup", "limit", "none", bench.home.contentOf("one")]);
    await bench.backend.ready(space);
    expect(asUser(bench.home.contentOf("one"), "dd if=/dev/urandom of=big bs=1M count=40").status).not.toBe(
      0,
    );
  });

  test("of a space whose quotas were turned off is refused until they are on again", async () => {
    await bench.backend.create(space);
    await runTool("btrfs", ["quota", "disable", bench.home.directory]);
    await expect(bench.backend.ready(space)).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    const backend = await bench.again();
    await backend.ready(space);
    expect(asUser(bench.home.contentOf("one"), "dd if=/dev/urandom of=big bs=1M count=40").status).not.toBe(
      0,
    );
  });
});

describe.skipIf(fileSystemObstacle !== undefined)("the choice of a backend", () => {
  const opened: (() => Promise<void> | void)[] = [];
  afterEach(async () => {
    for (const close of opened.splice(0).toReversed()) await close();
  });

  async function directoryOn(type: "btrfs" | "ext4"): Promise<string> {
    const disk = openFileSystem(type);
    opened.push(disk.close);
    return join(disk.directory, "workspaces");
  }

  test.each([
    ["btrfs", "BTRFS"],
    ["ext4", "LOOP_IMAGE"],
  ] as const)("on %s is %s, and leaves nothing of its proof", async (type, kind) => {
    const directory = await directoryOn(type);
    const choice = await chooseBackend({ directory, wanted: "auto", run: runTool });
    expect(choice).toMatchObject({ backend: { kind } });
    if ("backend" in choice) await choice.backend.close();
    expect(await leftIn(directory, kind)).toEqual([]);
    expect(mountsBelow(directory)).toEqual([]);
  });

  test("that does not fit the directory says why", async () => {
    const directory = await directoryOn("btrfs");
    const wanted = await chooseBackend({ directory, wanted: "loop-image", run: runTool });
    expect(wanted).toMatchObject({
      obstacle: expect.stringContaining("is on btrfs"),
      hint: expect.any(String),
    });
    await expect(openBackend("LOOP_IMAGE", { directory, run: runTool })).rejects.toMatchObject({
      reason: "WORKSPACES_UNAVAILABLE",
    });
  });

  test("is asked for without changing anything", async () => {
    const directory = await directoryOn("btrfs");
    const before = mountsBelow(directory);
    const probed = await probeAll({ directory, run: runTool });
    expect(probed.map(({ kind, obstacle }) => [kind, obstacle === undefined])).toEqual([
      ["BTRFS", true],
      ["PROJECT_QUOTA", false],
      ["LOOP_IMAGE", false],
    ]);
    expect(mountsBelow(directory)).toEqual(before);
    await expect(stat(directory)).rejects.toThrow("ENOENT");
  });

  test("falls to none, and leaves no mount, where a program fails", async () => {
    const directory = await directoryOn("btrfs");
    const run: RunTool = (program, args, options) =>
      args.includes("limit") ? Promise.reject(new Error("no such luck")) : runTool(program, args, options);
    const choice = await chooseBackend({ directory, wanted: "auto", run });
    expect(choice).toMatchObject({ obstacle: expect.stringContaining("no such luck") });
    expect(mountsBelow(directory)).toEqual([]);
  });
});
