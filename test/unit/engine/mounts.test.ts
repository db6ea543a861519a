import type { ContainerInspectInfo } from "dockerode";
import { describe, expect, test } from "vitest";
import type {
  BindMount,
  ContainerPlan,
  Mount,
  TmpfsMount,
  VolumeMount,
} from "../../../src/engine/container-plan.ts";
import { containerCreateOptions } from "../../../src/engine/host-config.ts";
import { findMountFaults, parseMountInfo } from "../../../src/engine/mount-read-back.ts";
import { memoryOptions, mountsSeen } from "../../../src/engine/mounts.ts";
import { findMismatches } from "../../../src/engine/verify.ts";
import { plan as bare, inspected } from "./plan.ts";

const size = { bytes: 1_048_576, inodes: 100 };
const bind: BindMount = {
  kind: "bind",
  source: "/srv/workspaces/one",
  target: "/workspace",
  readOnly: false,
  identity: { device: 1, inode: 2 },
};
const tmpfs: TmpfsMount = { kind: "tmpfs", target: "/scratch", sizeBytes: size.bytes, inodes: 100 };
const volume: VolumeMount = {
  kind: "volume",
  name: "sandboxd-h_volume_cache_acme",
  options: memoryOptions(size, { uid: 20_001, mode: "0700" }),
  labels: { "sandboxd.host": "h" },
  target: "/cache",
  readOnly: false,
  size,
};
const toolbox = {
  volume: "sandboxd-h_toolbox_0123456789abcdef",
  source: "/var/lib/sandboxd/toolbox/0123456789abcdef",
  identity: { device: 1, inode: 3 },
};
const planWith = (...mounts: readonly Mount[]): ContainerPlan => ({ ...bare, mounts });
const hostConfigOf = (...mounts: readonly Mount[]) => containerCreateOptions(planWith(...mounts)).HostConfig;

describe("what the engine is asked to mount", () => {
  test("is nothing where there is nothing", () => {
    expect(hostConfigOf()).not.toHaveProperty("Mounts");
  });

  test("is a directory that may be written to as it is, without what is mounted below", () => {
    expect(hostConfigOf(bind).Mounts).toEqual([
      {
        Type: "bind",
        Source: "/srv/workspaces/one",
        Target: "/workspace",
        BindOptions: { Propagation: "rprivate", NonRecursive: true },
      },
    ]);
  });

  test("is a volume that is read-only, nosuid and nodev already for one that may not", () => {
    const [mount] = hostConfigOf({ ...bind, readOnly: true }).Mounts ?? [];
    expect(mount).toEqual({
      Type: "volume",
      Source: "sandbox-one_workspace",
      Target: "/workspace",
      VolumeOptions: {
        NoCopy: true,
        Labels: {},
        DriverConfig: {
          Name: "local",
          Options: { type: "none", device: "/srv/workspaces/one", o: "bind,ro,nosuid,nodev,private" },
        },
      },
    });
  });

  test("is one read-only by the runtime alone where the volume is not so itself", () => {
    const readOnly = { ...volume, readOnly: true };
    expect(hostConfigOf(readOnly).Mounts?.[0]?.ReadOnly).toBe(true);
    const o = `${volume.options.o},ro`;
    expect(
      hostConfigOf({ ...readOnly, options: { ...volume.options, o } }).Mounts?.[0]?.ReadOnly,
    ).toBeUndefined();
  });

  test("is a tmpfs of the asked size, beside /tmp, and a mount in the place of an image's volume", () => {
    const at = "/var/data";
    const { Tmpfs: found = {} } = hostConfigOf(tmpfs, { ...volume, target: at });
    expect(Object.keys(found).toSorted()).toEqual(["/data2", "/dev/shm", "/scratch", "/tmp"]);
    expect(found["/scratch"]).toBe(
      "rw,nosuid,nodev,mode=1777,uid=20001,gid=20002,exec,size=1048576,nr_inodes=100",
    );
  });
});

describe("the toolbox", () => {
  const plan: ContainerPlan = {
    ...bare,
    labels: { "sandboxd.host": "h" },
    mounts: [volume, tmpfs, bind],
    toolbox,
  };

  test("is one volume for all, read-only already, among the mounts in their order", () => {
    const { Mounts: mounts = [] } = containerCreateOptions(plan).HostConfig;
    expect(mounts.map(({ Target: target }) => target)).toEqual(["/.sandboxd", "/cache", "/workspace"]);
    expect(mounts[0]).toEqual({
      Type: "volume",
      Source: toolbox.volume,
      Target: "/.sandboxd",
      VolumeOptions: {
        NoCopy: true,
        Labels: { "sandboxd.host": "h", "sandboxd.volume": toolbox.volume },
        DriverConfig: {
          Name: "local",
          Options: { type: "none", device: toolbox.source, o: "bind,ro,nosuid,nodev,private" },
        },
      },
    });
  });

  test("has its sockets in memory of the sandbox's user, where nothing can be executed", () => {
    expect(containerCreateOptions(plan).HostConfig.Tmpfs?.["/.sandboxd/run"]).toBe(
      "rw,nosuid,nodev,mode=0700,uid=20001,gid=20002,noexec,size=65536,nr_inodes=2048",
    );
    expect(hostConfigOf().Tmpfs).not.toHaveProperty("/.sandboxd/run");
  });

  test("is looked for with its memory, which alone may be mounted inside of it", () => {
    const found = findMountFaults(mountsSeen(plan), process.pid);
    expect(found.map(({ text }) => text).slice(-2)).toEqual([
      "/.sandboxd: nothing is mounted there",
      "/.sandboxd/run: nothing is mounted there",
    ]);
  });

  test.each(["/.sandboxd", "/.sandboxd/run", "/.sandboxd/a/b"])(
    "leaves no place for others at %s",
    (target) => {
      const taken = { ...plan, mounts: [{ ...tmpfs, target }] };
      expect(() => containerCreateOptions(taken)).toThrow(`"${target}" is where the toolbox is`);
      const declared = { ...plan, mounts: [], imageVolumes: [target] };
      expect(() => containerCreateOptions(declared)).toThrow(`${target} is where the toolbox is`);
      // a container of an earlier release may have it
      const { toolbox: _, ...earlier } = taken;
      expect(() => containerCreateOptions(earlier)).not.toThrow();
    },
  );

  test("is not had from a place by another name", () => {
    const odd = { ...plan, toolbox: { ...toolbox, source: "/a/../b" } };
    expect(() => containerCreateOptions(odd)).toThrow(RangeError);
  });
});

test.each<readonly [string, readonly Mount[]]>([
  ["a relative target", [{ ...bind, target: "workspace" }]],
  ["the root", [{ ...bind, target: "/" }]],
  ["a way out", [{ ...bind, target: "/a/../proc" }]],
  ["the engine's own notation", [{ ...tmpfs, target: "/a:exec" }]],
  ["/tmp", [{ ...tmpfs, target: "/tmp" }]],
  ["a place in /dev", [{ ...tmpfs, target: "/dev/shm" }]],
  ["a relative source", [{ ...bind, source: "a" }]],
  ["a source by another name", [{ ...bind, source: "/a/./b" }]],
  ["two at one place", [bind, { ...tmpfs, target: "/workspace" }]],
  [
    "the wrong order",
    [
      { ...tmpfs, target: "/b" },
      { ...tmpfs, target: "/a" },
    ],
  ],
  [
    "one in another, with one between them in order",
    ["/a", "/a-b", "/a/b"].map((target) => ({ ...tmpfs, target })),
  ],
  ["one above an image's volume", [{ ...tmpfs, target: "/var" }]],
  ["no size", [{ ...tmpfs, sizeBytes: 0 }]],
  ["no inodes", [{ ...tmpfs, inodes: Number.NaN }]],
  ["a volume with devices", [{ ...volume, options: { ...volume.options, o: "nosuid,private" } }]],
  ["a volume of no name", [{ ...volume, name: "" }]],
  ["too many", Array.from({ length: 65 }, (_, index) => ({ ...tmpfs, target: `/${100 + index}` }))],
])("a plan with %s is refused", (_, mounts) => {
  expect(() => containerCreateOptions(planWith(...mounts))).toThrow(RangeError);
});

describe("what the engine shows of mounts", () => {
  const plan = planWith(volume, bind);
  const shownVolume = {
    Type: "volume",
    Name: volume.name,
    Source: `/var/lib/docker/volumes/${volume.name}/_data`,
    Destination: "/cache",
    Driver: "local",
    Mode: "z",
    RW: true,
    Propagation: "",
  };
  const shownBind = {
    Type: "bind",
    Source: bind.source,
    Destination: "/workspace",
    Mode: "",
    RW: true,
    Propagation: "rprivate",
  };
  function mismatchesOf(shown: readonly object[]): readonly string[] {
    const info = inspected();
    const { Mounts } = containerCreateOptions(plan).HostConfig;
    const HostConfig = { ...info.HostConfig, Mounts };
    const found = { ...info, HostConfig, Mounts: shown } as ContainerInspectInfo;
    return findMismatches(plan, found).map(({ field }) => field);
  }

  test("is as planned in any order", () => {
    expect(mismatchesOf([shownBind, shownVolume])).toEqual([]);
    expect(mismatchesOf([shownVolume, shownBind])).toEqual([]);
  });

  test.each<readonly [string, readonly object[]]>([
    ["one less", [shownBind]],
    ["one more", [shownBind, shownVolume, { ...shownBind, Destination: "/x" }]],
    ["another source", [{ ...shownBind, Source: "/etc" }, shownVolume]],
    ["another volume", [shownBind, { ...shownVolume, Name: "other" }]],
    ["another driver", [shownBind, { ...shownVolume, Driver: "other" }]],
    ["mounts that come from the host", [{ ...shownBind, Propagation: "rslave" }, shownVolume]],
    ["one that cannot be written to", [{ ...shownBind, RW: false }, shownVolume]],
    ["a volume where a directory should be", [{ ...shownBind, Type: "volume" }, shownVolume]],
  ])("differs with %s", (_, shown) => {
    expect(mismatchesOf(shown)).toEqual(["Mounts"]);
  });

  test("differs with other settings than were asked for", () => {
    const info = inspected();
    const shown = { ...info, Mounts: [shownBind, shownVolume] } as ContainerInspectInfo;
    expect(findMismatches(plan, shown).map(({ field }) => field)).toEqual(["HostConfig.Mounts"]);
  });
});

describe("what the kernel tells of mounts", () => {
  test("is read from lines with any number of optional fields", () => {
    const text = [
      "118 101 254:0 /src /shared ro,nosuid,nodev,relatime master:3 shared:7 - ext4 /dev/vda rw,discard",
      "119 101 0:43 / /tv rw,nosuid - tmpfs tmpfs rw,size=1024k",
      "",
    ].join("\n");
    expect(parseMountInfo(text)).toEqual([
      {
        target: "/shared",
        flags: ["ro", "nosuid", "nodev", "relatime"],
        isPropagated: true,
        type: "ext4",
      },
      { target: "/tv", flags: ["rw", "nosuid"], isPropagated: false, type: "tmpfs" },
    ]);
  });

  test("is looked for at every target", () => {
    // this process is in no container, and has none of them
    const faults = findMountFaults([bind, tmpfs, volume], process.pid);
    expect(faults.map(({ text }) => text)).toEqual(
      ["/workspace", "/scratch", "/cache"].map((target) => `${target}: nothing is mounted there`),
    );
  });
});
