// Directories of the host in a container, from the plan to the kernel and back, by the engine's door alone.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import Docker from "dockerode";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { BindMount, ContainerPlan, Mount } from "../../src/engine/container-plan.ts";
import { createDockerRuntime, type DockerRuntime } from "../../src/engine/docker.ts";
import { memoryOptions, nfsOptions } from "../../src/engine/mounts.ts";
import { engineMark, removeCgroups } from "../../tools/lib/leftovers.mjs";
import { isUnified } from "../harness/cgroup.ts";
import { baseImage, engineObstacle, sharedEngine } from "../harness/engine.ts";
import { eventually, mebibyte } from "../harness/sandboxes.ts";
import { plan as anyPlan } from "../unit/engine/plan.ts";

const timeoutMs = 20_000;
const verbs = ["list", "inspect", "create", "start", "stop", "remove", "update", "pull", "pause"];
const uid = 20_001;

/** The test's own engine sees its own mounts: what is mounted for it, is mounted there. */
function enginePid(): string {
  const file = join(dirname(sharedEngine()), "docker.pid");
  return existsSync(file) ? readFileSync(file, "utf8").trim() : String(process.pid);
}
const asEngine = (...command: readonly string[]) =>
  execFileSync("nsenter", ["--target", enginePid(), "--mount", ...command]);
/** The path by which the engine's own is reached from here. */
const seenBy = (path: string) => `/proc/${enginePid()}/root${path}`;

describe.skipIf(engineObstacle !== undefined)(`mounts of a container (${engineObstacle ?? "engine"})`, () => {
  let runtime: DockerRuntime;
  let docker: Docker;
  let name: string;
  let base: string;
  let imageId: string;
  /** What the engine was asked. */
  let asked: string[];

  beforeEach(async () => {
    asked = [];
    runtime = createDockerRuntime({
      socket: sharedEngine(),
      timeoutsMs: Object.fromEntries([...verbs, "resume", "exec"].map((verb) => [verb, timeoutMs])) as never,
      observe: (verb) => asked.push(verb),
    });
    docker = new Docker({ socketPath: sharedEngine() });
    name = `mounts-${randomBytes(4).toString("hex")}`;
    base = mkdtempSync("/run/sandboxd-mounts-");
    imageId = (await docker.getImage(baseImage).inspect()).Id;
  });

  afterEach(async () => {
    const filters = JSON.stringify({ label: [`sandboxd.host=${name}`] });
    for (const { Id } of await docker.listContainers({ all: true, filters }))
      await docker.getContainer(Id).remove({ force: true, v: true });
    const left = await runtime.sweepVolumes(`sandboxd.host=${name}`);
    runtime.close();
    const own = readFileSync(`/proc/${enginePid()}/mountinfo`, "utf8")
      .split("\n")
      .map((line) => line.split(" ")[4] ?? "")
      .filter((target) => target.startsWith(`${base}/`));
    for (const target of own.toReversed()) asEngine("umount", target);
    rmSync(base, { recursive: true, force: true });
    await removeCgroups(parent().slice(1));
    expect(await volumes(), `after ${left?.join(", ")}`).toEqual([]);
  });

  const parent = () => `/${process.env[engineMark] ?? "sandboxd-test"}-${name}`;
  const volumes = async () => {
    const filters = { label: [`sandboxd.host=${name}`] };
    return ((await docker.listVolumes({ filters })).Volumes ?? []).map((one) => one.Name);
  };

  /** A directory of the sandbox's user on a file system that is mounted with these options. */
  function workspace(id: string, options = "nosuid,nodev"): string {
    const root = join(base, id);
    mkdirSync(root);
    asEngine("mount", "-t", "tmpfs", "-o", `${options},mode=0711,size=1m`, "sandboxd-test", root);
    const directory = join(root, "data");
    mkdirSync(seenBy(directory), { mode: 0o700 });
    chownSync(seenBy(directory), uid, uid);
    return directory;
  }

  function bindOf(source: string, change: Partial<BindMount> = {}): BindMount {
    const { dev: device, ino: inode } = statSync(seenBy(source));
    const identity = { device, inode };
    return { kind: "bind", source, target: "/workspace", readOnly: false, identity, ...change };
  }

  function planWith(mounts: readonly Mount[], script = "sleep 1000"): ContainerPlan {
    const { blockIo: _, ...limits } = anyPlan.limits;
    return {
      ...anyPlan,
      name,
      imageId,
      args: [script],
      uid,
      gid: uid,
      labels: { "sandboxd.host": name },
      cgroupParent: parent(),
      limits,
      imageVolumes: [],
      mounts,
      engine: { cgroupVersion: isUnified ? 2 : 1, possibleCpus: 4 },
    };
  }

  /** As the daemon does it. */
  async function start(plan: ContainerPlan): Promise<string> {
    const made = await runtime.create(plan);
    if (made === "taken") throw new Error("the name is taken");
    await runtime.compare(made.id, plan, { isNew: true });
    await runtime.start(made.id);
    return made.id;
  }

  async function inside(id: string, script: string): Promise<string> {
    const { output } = await runtime.exec(id, {
      command: ["sh", "-c", script],
      user: `${uid}:${uid}`,
      workingDir: "/tmp",
      timeoutMs,
      maxOutputBytes: 10_000,
    });
    return output.toString().trim();
  }

  const flagsAt = async (id: string, target: string) =>
    (await inside(id, `grep " ${target} " /proc/self/mountinfo`)).split(" ")[5]?.split(",") ?? [];

  test("a directory can be written to, and what is written is on the host", async () => {
    const source = workspace("one");
    const plan = planWith([bindOf(source)]);
    const id = await start(plan);
    const before = asked.length;
    expect(await runtime.verify(id, plan)).toBeDefined();
    // the kernel alone was
    expect(asked.slice(before)).toEqual([]);
    expect(await inside(id, "echo hello > /workspace/file && cat /workspace/file")).toBe("hello");
    expect(readFileSync(seenBy(join(source, "file")), "utf8")).toBe("hello\n");
    expect(await flagsAt(id, "/workspace")).toEqual(expect.arrayContaining(["rw", "nosuid", "nodev"]));
  });

  test("a read-only directory is nosuid and nodev all the same", async () => {
    const plan = planWith([bindOf(workspace("one"), { readOnly: true })]);
    const id = await start(plan);
    expect(await runtime.verify(id, plan)).toBeDefined();
    expect(await inside(id, "echo hello > /workspace/file")).toContain("Read-only file system");
    expect(await flagsAt(id, "/workspace")).toEqual(expect.arrayContaining(["ro", "nosuid", "nodev"]));
  });

  test("what is mounted below a directory later, is not seen inside", async () => {
    const source = workspace("one");
    mkdirSync(seenBy(join(source, "below")));
    const plan = planWith([bindOf(source), bindOf(source, { target: "/workspace-ro", readOnly: true })]);
    const id = await start(plan);
    asEngine("mount", "-t", "tmpfs", "sandboxd-test", join(source, "below"));
    expect(await runtime.verify(id, plan)).toBeDefined();
    expect(await inside(id, "grep -c below /proc/self/mountinfo")).toBe("0");
  });

  test("a source that is exchanged before the start is found out", async () => {
    const source = workspace("one");
    for (const readOnly of [false, true]) {
      const plan = planWith([bindOf(source, { readOnly })]);
      renameSync(seenBy(source), seenBy(`${source}-${readOnly}`));
      mkdirSync(seenBy(source));
      const id = await start(plan);
      await expect(runtime.verify(id, plan)).rejects.toMatchObject({
        reason: "HARDENING_MISMATCH",
        message: expect.stringMatching(/\/workspace: is directory .* it was exchanged/),
      });
      await runtime.remove(id);
    }
  });

  test("a source that allows devices is found out", async () => {
    const plan = planWith([bindOf(workspace("one", "nosuid"))]);
    const id = await start(plan);
    await expect(runtime.verify(id, plan)).rejects.toMatchObject({
      reason: "HARDENING_MISMATCH",
      message: expect.stringContaining("/workspace: is not nodev"),
    });
  });

  test("a source that is not there is no reason to make one", async () => {
    const source = join(base, "nothing");
    const identity = { device: 1, inode: 1 };
    const plan = planWith([{ kind: "bind", source, target: "/workspace", readOnly: false, identity }]);
    await expect(runtime.create(plan)).rejects.toMatchObject({ reason: "ENGINE_FAILED" });
    expect(statSync(source, { throwIfNoEntry: false })).toBeUndefined();
  });

  test("a tmpfs has the size and the inodes that were asked for, and another is found out", async () => {
    const tmpfs = { kind: "tmpfs", target: "/scratch", sizeBytes: mebibyte, inodes: 20 } as const;
    const plan = planWith([tmpfs]);
    const id = await start(plan);
    expect(await runtime.verify(id, plan)).toBeDefined();
    expect(
      await inside(
        id,
        "for i in $(seq 40); do touch /scratch/$i 2>/dev/null || break; done; ls /scratch | wc -l",
      ),
    ).toBe("19");
    const other = planWith([{ ...tmpfs, sizeBytes: 2 * mebibyte, inodes: 30 }]);
    await expect(runtime.verify(id, other)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringMatching(/has 1048576 bytes, not 2097152.*has 20 inodes, not 30/),
    });
  });

  test("an image's volume gives way to a mount at its path, and holds one in it", async () => {
    const container = await docker.createContainer({ Image: baseImage, Labels: { "sandboxd.host": name } });
    const changes = ["VOLUME /data", "VOLUME /var/data", "LABEL sandboxd.host="].join("\n");
    const { Id } = await container.commit({ repo: name, changes });
    await container.remove();
    try {
      const tmpfs = { kind: "tmpfs", sizeBytes: mebibyte, inodes: 20 } as const;
      const at = { ...bindOf(workspace("one")), target: "/data" };
      const plan = {
        ...planWith([at, { ...tmpfs, target: "/var/data/sets" }]),
        imageId: Id,
        imageVolumes: ["/data", "/var/data"],
      };
      const id = await start(plan);
      expect(await runtime.verify(id, plan)).toBeDefined();
      const { Mounts: shown } = await docker.getContainer(id).inspect();
      expect(shown.map((one) => one.Destination)).toEqual(["/data"]);
      expect(await inside(id, "touch /data/a /var/data/b /var/data/sets/c && echo written")).toBe("written");
      await runtime.remove(id);
    } finally {
      await docker.getImage(name).remove({ force: true });
    }
  });

  test("a read-only use of a volume in memory runs without suid and devices, or not at all", async () => {
    const size = { bytes: mebibyte, inodes: 100 };
    const volume = {
      kind: "volume",
      name: `${name}_volume`,
      options: memoryOptions(size, { uid, mode: "0700" }),
      labels: { "sandboxd.host": name },
      target: "/volume",
      readOnly: true,
      size,
    } as const;
    const plan = planWith([volume]);
    const id = await start(plan);
    const verified = await runtime.verify(id, plan).catch((error: unknown) => error);
    const flags = await flagsAt(id, "/volume");
    expect(flags).toContain("ro");
    if (flags.includes("nosuid") && flags.includes("nodev")) expect(verified).toHaveProperty("memory");
    else expect(verified).toMatchObject({ reason: "HARDENING_MISMATCH" });
  });

  test("a server that cannot be mounted is told as such, not as a command that cannot run", async () => {
    const options = nfsOptions({
      address: "127.0.0.1",
      path: "/export",
      options: ["vers=4", "soft", "timeo=5", "retrans=1"],
      readOnly: true,
    });
    expect(options.o).toBe("addr=127.0.0.1,vers=4,soft,timeo=5,retrans=1,ro,nosuid,nodev,private");
    const labels = { "sandboxd.host": name };
    const target = "/nfs";
    const plan = planWith([{ kind: "volume", name: `${name}_nfs`, options, labels, target, readOnly: true }]);
    await expect(start(plan)).rejects.toMatchObject({
      reason: "ENGINE_FAILED",
      message: expect.stringContaining("mounting volume"),
    });
  });

  test("the toolbox costs the engine no question but the first, and another in its place is found out", async () => {
    const source = join(base, "toolbox");
    mkdirSync(join(source, "run"), { recursive: true, mode: 0o755 });
    const volume = `${name}_toolbox`;
    const plan = {
      ...planWith([]),
      labels: { "sandboxd.host": name },
      toolbox: { volume, source, identity: bindOf(source).identity },
    };
    const run = async (number: number) => {
      const own = { ...plan, name: `${name}-${number}` };
      asked.length = 0;
      const made = await runtime.create(own);
      if (made === "taken") throw new Error("taken");
      await runtime.compare(made.id, own, { isNew: true });
      await runtime.start(made.id);
      const questions = [...asked];
      await runtime.verify(made.id, own);
      return { id: made.id, questions };
    };
    const first = await run(1);
    expect(first.questions).toEqual(["inspect", "create", "inspect", "create", "inspect", "start"]);
    const second = await run(2);
    expect(second.questions).toEqual(["create", "inspect", "start"]);

    // as root of the host might
    for (const { id } of [first, second]) await runtime.remove(id);
    await docker.getVolume(volume).remove();
    const other = join(base, "other");
    mkdirSync(join(other, "run"), { recursive: true });
    const options = { type: "none", device: other, o: "bind,ro,nosuid,nodev,private" };
    const labels = { "sandboxd.host": name, "sandboxd.volume": volume };
    await docker.createVolume({ Name: volume, DriverOpts: options, Labels: labels });
    await expect(run(3)).rejects.toMatchObject({
      reason: "HARDENING_MISMATCH",
      message: expect.stringContaining("it was exchanged"),
    });
    // which is reason enough to look again, and to make it anew where nobody has it
    await docker.getContainer(`${name}-3`).remove({ force: true });
    await run(4);
  });

  test("a volume that somebody else made, or made anew, is refused, and ours of before is replaced", async () => {
    const size = { bytes: mebibyte, inodes: 100 };
    const volume = {
      kind: "volume",
      name: `${name}_volume`,
      options: memoryOptions(size, { uid, mode: "0700" }),
      labels: { "sandboxd.host": name },
      target: "/volume",
      readOnly: false,
      size,
    } as const;
    const plan = planWith([volume]);
    await docker.createVolume({ Name: volume.name });
    await expect(runtime.create(plan)).rejects.toMatchObject({
      reason: "HARDENING_MISMATCH",
      message: expect.stringContaining(`volume ${volume.name} is another than planned: options`),
    });
    await docker.getVolume(volume.name).remove();

    const before = {
      ...volume,
      options: memoryOptions({ bytes: 65_536, inodes: 100 }, { uid, mode: "0700" }),
    };
    await docker.createVolume({ Name: before.name, DriverOpts: before.options, Labels: before.labels });
    const id = await start(plan);
    expect(await runtime.verify(id, plan)).toBeDefined();

    // in use as it is now, it stays
    await expect(runtime.create(planWith([before]))).rejects.toMatchObject({ reason: "HARDENING_MISMATCH" });
    await expect(runtime.compare(id, planWith([before]), { isNew: true })).rejects.toMatchObject({
      reason: "HARDENING_MISMATCH",
    });
    expect(await runtime.sweepVolumes(`sandboxd.host=${name}`)).toEqual([]);
    await runtime.remove(id);
    await eventually(
      "the container's end",
      () => runtime.inspect(id),
      (found) => found === undefined,
    );
    expect(await runtime.sweepVolumes(`sandboxd.host=${name}`)).toEqual([volume.name]);
  });
});
