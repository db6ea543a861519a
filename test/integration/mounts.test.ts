// What sandboxes see besides their images, through the whole daemon: directories in memory, shared directories and volumes.

import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  refusalOf,
  type SpecInit,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`mounts (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let base: string;

  beforeAll(async () => {
    // nobody else's to write to, all the way up
    base = mkdtempSync("/run/sandboxd-mounts-");
    for (const name of ["datasets", "open", "real"]) mkdirSync(join(base, name), { mode: 0o755 });
    writeFileSync(join(base, "datasets/numbers"), "42\n");
    mkdirSync(join(base, "open/inner"));
    chmodSync(join(base, "open"), 0o777);
    symlinkSync(join(base, "real"), join(base, "link"));
    const memory = { driver: "tmpfs", size_bytes: "1MiB", inodes: 50 };
    host = await startHost({
      config: {
        shared: {
          datasets: { directory: join(base, "datasets") },
          exchangeable: { directory: join(base, "open/inner") },
          link: { directory: join(base, "link") },
        },
        volumes: {
          cache: memory,
          board: { ...memory, scope: "host" },
          archive: {
            driver: "nfs",
            address: "127.0.0.1",
            export: "/export/{tenant}",
            options: ["vers=4", "soft", "timeo=5", "retrans=1"],
          },
        },
        defaults: { tmpfs_bytes: "8MiB" },
        limits: { max: { tmpfs_bytes: "16MiB" } },
        templates: {
          worker: {
            image: "sandboxd-base:latest",
            tmpfs: { scratch: { size_bytes: "1MiB" } },
            shared: { datasets: { path: "/data/sets" } },
            volumes: { cache: {} },
          },
        },
      },
    });
  });

  afterEach(async () => {
    for (const { sandboxId } of (await host.sandboxes.listSandboxes({})).sandboxes)
      await host.sandboxes.deleteSandbox({ sandboxId });
    await eventually("the end of all containers", host.containers, (found) => found.length === 0);
    for (const name of await volumes()) await host.docker.getVolume(name).remove();
  });
  afterAll(async () => {
    await host?.daemon.cleanup();
    if (base !== undefined) rmSync(base, { recursive: true, force: true });
  });

  const prefix = () => `sandboxd-${host.daemon.hostId}_`;
  async function volumes(): Promise<readonly string[]> {
    const { Volumes: found } = await host.docker.listVolumes();
    const own = (found ?? []).map((one) => one.Name).filter((name) => name.startsWith(prefix()));
    // that of the toolbox is everybody's
    return own.filter((name) => !name.startsWith(`${prefix()}toolbox_`));
  }

  async function create(id: string, spec: SpecInit, owner = tenant): Promise<Sandbox> {
    const { sandbox } = await host.sandboxes.createSandbox({ sandboxId: id, tenant: owner, spec });
    return present(sandbox);
  }

  /** Creates one that cannot run, and gives it as it was kept. */
  async function failedOf(id: string, spec: SpecInit): Promise<Sandbox> {
    const { message } = await refusalOf(create(id, spec));
    const sandbox = await host.get(id);
    expect(message).toContain(sandbox.status?.transition?.message);
    return sandbox;
  }

  /** Runs a script to its end in a sandbox that goes on, and gives what it wrote. */
  async function outputOf(id: string, script: string, mounts: SpecInit, owner = tenant): Promise<string> {
    const sandbox = await create(
      id,
      { ...specOf(`(${script}) 2>&1; echo done; sleep 1000`), ...mounts },
      owner,
    );
    expect(whereIs(sandbox), sandbox.status?.transition?.message).toMatchObject({ state: "RUNNING" });
    const text = await eventually(
      `the end of ${script}`,
      () => host.output(id),
      (output) => output.endsWith("done\n"),
    );
    return text.slice(0, -"done\n".length).trim();
  }

  const flags = (target: string) => `grep ' ${target} ' /proc/self/mountinfo | cut -d' ' -f6`;

  test("a directory in memory takes what was asked for, and no more", async () => {
    const fill = [
      flags("/scratch"),
      "dd if=/dev/zero of=/scratch/file bs=64k count=100 2>/dev/null; stat -c %s /scratch/file",
      "rm /scratch/file; for i in $(seq 40); do touch /scratch/$i 2>/dev/null; done; ls /scratch | wc -l",
    ].join("; ");
    const tmpfs = [{ path: "/scratch", sizeBytes: BigInt(mebibyte), inodes: 20n }];
    const [seen = "", size, count] = (await outputOf("memory", fill, { tmpfs })).split("\n");
    expect(seen.split(",")).toEqual(expect.arrayContaining(["rw", "nosuid", "nodev"]));
    expect(Number(size)).toBe(mebibyte);
    // the directory itself is one
    expect(Number(count)).toBe(19);
    expect((await host.get("memory")).spec?.tmpfs).toMatchObject(tmpfs);
  });

  test("a shared directory is seen read-only, without suid and devices", async () => {
    const script = `cat /datasets/numbers; touch /datasets/own; ${flags("/datasets")}`;
    const [first, second, third = ""] = (
      await outputOf("reader", script, { shared: [{ name: "datasets" }] })
    ).split("\n");
    expect(first).toBe("42");
    expect(second).toContain("Read-only file system");
    expect(third.split(",")).toEqual(expect.arrayContaining(["ro", "nosuid", "nodev"]));
    expect((await host.get("reader")).spec?.shared).toMatchObject([{ name: "datasets", path: "/datasets" }]);
  });

  test("a tenant's volume is its own, and one of the host is everybody's", async () => {
    const mounts = { volumes: [{ name: "cache" }, { name: "board", path: "/var/board" }] };
    const write = "echo mine > /cache/note; echo all > /var/board/note; cat /cache/note";
    expect(await outputOf("first", write, mounts)).toBe("mine");
    const read = "cat /cache/note; cat /var/board/note";
    expect(await outputOf("second", read, mounts)).toBe("mine\nall");
    const other = (await outputOf("third", read, mounts, "globex")).split("\n");
    expect(other).toEqual([expect.stringContaining("No such file"), "all"]);
    expect((await volumes()).toSorted()).toEqual(
      ["volume_board", "volume_cache_acme", "volume_cache_globex"].map((name) => `${prefix()}${name}`),
    );
  });

  test("a template's mounts are its sandboxes', unless their request has others", async () => {
    const { image: _, ...bare } = specOf("sleep 1000");
    const plain = await create("plain", { ...bare, template: "worker" });
    expect(whereIs(plain)).toMatchObject({ state: "RUNNING" });
    expect(plain.spec).toMatchObject({
      tmpfs: [{ path: "/scratch", sizeBytes: BigInt(mebibyte), inodes: 16_384n }],
      shared: [{ name: "datasets", path: "/data/sets" }],
      volumes: [{ name: "cache", path: "/cache", readOnly: false }],
    });
    const shared = [{ name: "datasets", path: "/elsewhere" }];
    const own = await create("own", { ...bare, template: "worker", shared });
    expect(own.spec).toMatchObject({ shared, volumes: [{ name: "cache" }] });
  });

  test("what cannot be mounted is refused by its fields, before the engine hears of it", async () => {
    const refusal = await refusalOf(
      create("refused", {
        ...specOf("true"),
        tmpfs: [
          { path: "/tmp/below", sizeBytes: BigInt(mebibyte) },
          { path: "/big", sizeBytes: BigInt(33 * mebibyte) },
          { path: "/a/b", sizeBytes: BigInt(mebibyte) },
        ],
        shared: [{ name: "nothing" }, { name: "datasets", path: "/a" }],
        volumes: [{ name: "cache" }, { name: "cache", path: "/cache2" }],
      }),
    );
    expect(refusal).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    for (const text of [
      'spec.tmpfs[0].path: "/tmp/below" lies in /tmp',
      "spec.tmpfs[1].size_bytes: 34603008 is above memory_bytes, 33554432",
      "spec.tmpfs[1].size_bytes: 34603008 is above this host's greatest tmpfs_bytes, 16777216",
      'spec.shared[0].name: this host shares no "nothing"; it has: datasets, exchangeable, link',
      'spec.shared[1].path: "/a" is at, above or below spec.tmpfs[2].path, "/a/b"',
      'spec.volumes[1].name: "cache" is named twice',
    ])
      expect(refusal.message).toContain(text);
    expect((await host.sandboxes.listSandboxes({})).sandboxes).toEqual([]);
    expect(await host.containers()).toEqual([]);
    expect(await volumes()).toEqual([]);
  });

  test("a directory that others could exchange, or a link, is not shared", async () => {
    for (const [name, why] of [
      ["exchangeable", `${base}/open is not root's alone to write to`],
      ["link", `${base}/link is a link, or no directory`],
    ] as const) {
      const failed = await failedOf(name, { ...specOf("sleep 1000"), shared: [{ name }] });
      expect(whereIs(failed)).toEqual({ state: "FAILED", reason: "HARDENING_MISMATCH" });
      expect(failed.status?.transition?.message).toContain(why);
    }
    expect(await host.containers()).toEqual([]);
    expect(await volumes()).toEqual([]);
  });

  test("a volume that somebody put in the place of ours is refused, and left alone", async () => {
    const name = `${prefix()}volume_cache_acme`;
    await host.docker.createVolume({ Name: name });
    const failed = await failedOf("deceived", { ...specOf("sleep 1000"), volumes: [{ name: "cache" }] });
    expect(whereIs(failed)).toEqual({ state: "FAILED", reason: "HARDENING_MISMATCH" });
    expect(failed.status?.transition?.message).toContain(name);
    expect(await host.containers()).toEqual([]);
    expect(await volumes()).toEqual([name]);
  });

  test("a server that cannot be mounted fails the start, and leaves no container", async () => {
    const failed = await failedOf("remote", { ...specOf("sleep 1000"), volumes: [{ name: "archive" }] });
    expect(whereIs(failed)).toEqual({ state: "FAILED", reason: "START_FAILED" });
    const name = `${prefix()}volume_archive_acme`;
    const { Options: options } = await host.docker.getVolume(name).inspect();
    expect(options).toEqual({
      type: "nfs",
      device: ":/export/acme",
      o: "addr=127.0.0.1,vers=4,soft,timeo=5,retrans=1,nosuid,nodev,private",
    });
    await eventually("its end", host.containers, (found) => found.length === 0);
  });

  test("they are there again after a stop and a start", async () => {
    const mounts = { shared: [{ name: "datasets" }], volumes: [{ name: "cache" }] };
    await create("again", { ...specOf("sleep 1000"), ...mounts });
    await host.sandboxes.stopSandbox({ sandboxId: "again" });
    await host.sandboxes.startSandbox({ sandboxId: "again" });
    const sandbox = await host.until("again", isIn(SandboxState.RUNNING));
    expect(sandbox.spec).toMatchObject(mounts);
  });

  test("a volume goes with the last sandbox that has it, and not before", async () => {
    const volumes = async () => {
      const filters = JSON.stringify({ label: [`sandboxd.host=${host.daemon.hostId}`] });
      return ((await host.docker.listVolumes({ filters })).Volumes ?? []).map(({ Name: name }) => name);
    };
    const spec = { ...specOf("exec sleep 1000"), volumes: [{ name: "cache" }] };
    for (const sandboxId of ["last-1", "last-2"])
      await host.sandboxes.createSandbox({ sandboxId, tenant: "leaver", spec });
    const isTheirs = (name: string) => name.endsWith("_cache_leaver");
    expect((await volumes()).filter(isTheirs)).toHaveLength(1);
    await host.sandboxes.deleteSandbox({ sandboxId: "last-1" });
    // longer than it takes to be looked at
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect((await volumes()).filter(isTheirs)).toHaveLength(1);
    await host.sandboxes.deleteSandbox({ sandboxId: "last-2" });
    await eventually("the end of the volume", volumes, (names) => !names.some(isTheirs), 60_000);
  });

  test("a writable root layer that the engine's storage cannot bound is refused, and nothing is left", async () => {
    const spec = { ...specOf("exec sleep 1000"), rootBytes: BigInt(16 * mebibyte) };
    const refused = await refusalOf(host.sandboxes.createSandbox({ sandboxId: "writable", tenant, spec }));
    expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
    expect(refused.message).toContain("spec.root_bytes 16777216 cannot be held here");
    expect((await host.containers()).filter(({ Names: [name] }) => name?.endsWith("writable"))).toEqual([]);
    await host.sandboxes.deleteSandbox({ sandboxId: "writable" });
  });
});
