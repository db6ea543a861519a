import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { SandboxSpecSchema } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { mountRequestOf, mountsOf } from "../../../src/api/mount-codec.ts";
import type { SandboxdError } from "../../../src/errors.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import type { MountRequest } from "../../../src/sandbox/mount-spec.ts";
import { effectiveSpec, type SpecRequest } from "../../../src/sandbox/spec.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import { configOf } from "../config/fixture.ts";

const mebibyte = 2 ** 20;

const toml = `
  [limits.max]
  tmpfs_bytes = "64MiB"
  tmpfs_inodes = 16384

  [shared.data]
  directory = "/srv/data"

  [volumes.cache]
  driver = "tmpfs"
  size_bytes = "1MiB"

  [volumes.docs]
  driver = "nfs"
  scope = "host"
  address = "nas"
  export = "/docs"
  read_only = true

  [templates.worker]
  image = "busybox"
  [templates.worker.tmpfs.scratch]
  size_bytes = "1MiB"
  [templates.worker.shared.data]
  [templates.worker.volumes.cache]
  path = "/var/cache"
`;

const request: SpecRequest = {
  template: "",
  image: "busybox",
  command: [],
  args: [],
  env: {},
  workingDir: "",
  labels: {},
  resources: {},
};

const effective = (mounts: MountRequest, template = "") =>
  effectiveSpec({ ...request, ...mounts, template }, configOf(toml), {
    tenant: "acme",
    limitRange: noRange,
    network: noNetwork,
  });

function violationsOf(mounts: MountRequest): readonly string[] {
  try {
    effective(mounts);
  } catch (error) {
    const { reason, details } = error as SandboxdError;
    expect(reason).toBe("INVALID_FIELD");
    return (details.fields ?? []).map(({ field, description }) => `${field}: ${description}`);
  }
  return [];
}

const at = (path: string): MountRequest => ({ tmpfs: [{ path, sizeBytes: mebibyte }] });

describe("the mounts of a spec", () => {
  test("are absent where there are none, as in specs of earlier releases", () => {
    const spec = effective({});
    for (const key of ["workspace", "tmpfs", "shared", "volumes"]) expect(spec).not.toHaveProperty(key);
    expect(mountRequestOf(create(SandboxSpecSchema, {}))).toEqual({});
  });

  test("have defaults for what the request leaves out", () => {
    const spec = effective({
      ...at("/scratch"),
      shared: [{ name: "data", path: "" }],
      volumes: [{ name: "cache", path: "", readOnly: false }],
    });
    expect(spec.tmpfs).toEqual([{ path: "/scratch", sizeBytes: mebibyte, inodes: 16_384 }]);
    expect(spec.shared).toEqual([{ name: "data", path: "/data" }]);
    expect(spec.volumes).toEqual([{ name: "cache", path: "/cache", readOnly: false }]);
  });

  test("are the template's, list by list, where the request has none", () => {
    const spec = effective({ tmpfs: [{ path: "/own", sizeBytes: mebibyte, inodes: 20 }] }, "worker");
    expect(spec.tmpfs).toEqual([{ path: "/own", sizeBytes: mebibyte, inodes: 20 }]);
    expect(spec.shared).toEqual([{ name: "data", path: "/data" }]);
    expect(spec.volumes).toEqual([{ name: "cache", path: "/var/cache", readOnly: false }]);
  });

  test("cannot be written to where the host says so, whatever the request says", () => {
    const { volumes } = effective({ volumes: [{ name: "docs", path: "", readOnly: false }] });
    expect(volumes).toEqual([{ name: "docs", path: "/docs", readOnly: true }]);
  });

  test("a workspace is where the command starts", () => {
    const workspace = { workspaceId: "one", readOnly: false };
    expect(effective({ workspace })).toMatchObject({ workspace, workingDir: "/workspace" });
    expect(effective({}).workingDir).toBe("/tmp");
  });

  test("come and go over the wire", () => {
    const mounts = {
      workspace: { workspaceId: "one", readOnly: true },
      tmpfs: [{ path: "/scratch", sizeBytes: 2 ** 40, inodes: 20 }],
      shared: [{ name: "data", path: "/data" }],
      volumes: [{ name: "cache", path: "/cache", readOnly: true }],
    };
    expect(mountRequestOf(create(SandboxSpecSchema, mountsOf(mounts)))).toEqual(mounts);
  });
});

describe("a mount is refused", () => {
  test.each([
    "/",
    "/tmp",
    "/tmp/a",
    "/dev",
    "/dev/shm",
    "/proc/sys",
    "/sys",
    "/etc",
    "/sbin",
    "/a/",
    "/a//b",
    "/a/../b",
    "/a/.",
    "a",
    "/a b",
    "/a:b",
    `/${"a".repeat(1_024)}`,
  ])("at %s", (path) => {
    expect(violationsOf(at(path))).toEqual([expect.stringMatching(/^spec\.tmpfs\[0\]\.path: /)]);
  });

  test.each(["/tmpfile", "/devices", "/etc/app", "/a/b.c_d-e", "/.hidden"])("not at %s", (path) => {
    expect(violationsOf(at(path))).toEqual([]);
  });

  test("at, above or below another, and beside one it is not", () => {
    const two = (first: string, second: string) =>
      violationsOf({
        shared: [{ name: "data", path: first }],
        volumes: [{ name: "cache", path: second, readOnly: false }],
      });
    for (const [first, second] of [
      ["/a", "/a"],
      ["/a", "/a/b"],
      ["/a/b/c", "/a"],
    ] as const) {
      expect(two(first, second)).toEqual([
        `spec.volumes[0].path: "${second}" is at, above or below spec.shared[0].path, "${first}"`,
      ]);
    }
    expect(two("/a", "/a-b")).toEqual([]);
    const workspace = { workspaceId: "one", readOnly: false };
    expect(violationsOf({ workspace, ...at("/workspace/tmp") })).toEqual([
      'spec.tmpfs[0].path: "/workspace/tmp" is at, above or below spec.workspace, "/workspace"',
    ]);
    expect(violationsOf(at("/workspace"))).toEqual([]);
  });

  test("for its size, by what it counts against and by the host's greatest", () => {
    const sized = (sizeBytes: number, inodes = 16) =>
      violationsOf({ tmpfs: [{ path: "/a", sizeBytes, inodes }] });
    expect(sized(64 * mebibyte, 16_384)).toEqual([]);
    expect(sized(513 * mebibyte)).toEqual([
      "spec.tmpfs[0].size_bytes: 537919488 is above memory_bytes, 536870912",
      "spec.tmpfs[0].size_bytes: 537919488 is above this host's greatest tmpfs_bytes, 67108864",
    ]);
    expect(sized(mebibyte, 16_385)).toEqual([
      "spec.tmpfs[0].inodes: 16385 is above this host's greatest tmpfs_inodes, 16384",
    ]);
  });

  test("for a name that the host has not, or has once", () => {
    expect(
      violationsOf({
        shared: [
          { name: "toString", path: "/a" },
          { name: "data", path: "/b" },
          { name: "data", path: "/c" },
        ],
        volumes: [{ name: "nothing", path: "/d", readOnly: false }],
      }),
    ).toEqual([
      'spec.shared[0].name: this host shares no "toString"; it has: data',
      'spec.shared[2].name: "data" is named twice',
      'spec.volumes[0].name: this host declares no "nothing"; it has: cache, docs',
    ]);
  });
});
