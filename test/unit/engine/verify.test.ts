import type { ContainerInspectInfo } from "dockerode";
import { describe, expect, test } from "vitest";
import { findMismatches, limitWarnings } from "../../../src/engine/verify.ts";
import { inspected, plan } from "./plan.ts";

type Path = readonly (string | number)[];

/** A copy of what the engine showed, with one value replaced. */
function with_(path: Path, value: unknown): ContainerInspectInfo {
  const info = inspected();
  let at = info as unknown as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  at[path[path.length - 1] ?? ""] = value;
  return info;
}

const loosenings: readonly (readonly [Path, unknown])[] = [
  [["Name"], "/other"],
  [["Image"], `sha256:${"0".repeat(64)}`],
  [["AppArmorProfile"], "unconfined"],
  [["Mounts"], [{ Type: "volume", Name: "x", Destination: "/data", RW: true }]],
  [["NetworkSettings", "Networks"], { bridge: {} }],
  [["NetworkSettings", "Networks"], { none: {}, bridge: {} }],
  [["Config", "User"], ""],
  [["Config", "User"], "20001"],
  [["Config", "User"], "0:0"],
  [["Config", "Image"], "name:latest"],
  [["Config", "Hostname"], "other"],
  [["Config", "Cmd"], ["other"]],
  [["Config", "Entrypoint"], null],
  [["Config", "WorkingDir"], "/proc/self/fd/7"],
  [["Config", "Healthcheck"], { Test: ["CMD", "x"] }],
  [["Config", "Healthcheck"], null],
  [["Config", "StopSignal"], "SIGKILL"],
  [["Config", "StopTimeout"], null],
  [["Config", "OpenStdin"], true],
  [["Config", "Tty"], true],
  [["Config", "Env"], ["HOME=/tmp"]],
  [
    ["Config", "Env"],
    ["GREETING=hello", "HOME=/root"],
  ],
  [
    ["Config", "Env"],
    ["GREETING=hello", "HOME=/tmp", "HOME=/root"],
  ],
  [["Config", "Labels"], {}],
  [["Config", "Labels", "sandboxd.id"], "two"],
  [["Config", "Labels", "sandboxd.tenant"], "spoofed by an image"],
  [["Config", "Volumes"], { "/elsewhere": {} }],
  [["Config", "MacAddress"], "02:42:ac:11:00:02"],
  [["HostConfig", "Binds"], ["/:/host"]],
  [["HostConfig", "Mounts"], [{ Type: "bind", Source: "/", Target: "/host" }]],
  [
    ["HostConfig", "Devices"],
    [{ PathOnHost: "/dev/kmsg", PathInContainer: "/dev/kmsg", CgroupPermissions: "r" }],
  ],
  [["HostConfig", "DeviceRequests"], [{ Driver: "x", Count: -1 }]],
  [["HostConfig", "DeviceCgroupRules"], ["a *:* rwm"]],
  [["HostConfig", "CapAdd"], ["SYS_ADMIN"]],
  [["HostConfig", "CapDrop"], null],
  [["HostConfig", "Capabilities"], ["CAP_SYS_ADMIN"]],
  [["HostConfig", "VolumesFrom"], ["other"]],
  [["HostConfig", "Links"], ["other"]],
  [["HostConfig", "ExtraHosts"], ["metadata:169.254.169.254"]],
  [["HostConfig", "Dns"], ["10.0.0.1"]],
  [["HostConfig", "Sysctls"], { "net.ipv4.ip_forward": "1" }],
  [["HostConfig", "PidMode"], "host"],
  [["HostConfig", "UTSMode"], "host"],
  [["HostConfig", "UsernsMode"], "host"],
  [["HostConfig", "IpcMode"], "shareable"],
  [["HostConfig", "CgroupnsMode"], "host"],
  [["HostConfig", "NetworkMode"], "default"],
  [["HostConfig", "GroupAdd"], ["0"]],
  [["HostConfig", "Privileged"], true],
  [["HostConfig", "PublishAllPorts"], true],
  [["HostConfig", "PortBindings"], { "22/tcp": [{ HostIp: "", HostPort: "22" }] }],
  [["HostConfig", "Runtime"], "other"],
  [["HostConfig", "OomKillDisable"], true],
  [["HostConfig", "OomScoreAdj"], 0],
  [["HostConfig", "SecurityOpt"], ["no-new-privileges"]],
  [
    ["HostConfig", "SecurityOpt"],
    ["no-new-privileges", "seccomp=unconfined"],
  ],
  [["HostConfig", "SecurityOpt", 2], "apparmor=unconfined"],
  [["HostConfig", "MaskedPaths"], []],
  [["HostConfig", "MaskedPaths", 0], "/harmless"],
  [["HostConfig", "ReadonlyPaths"], null],
  [["HostConfig", "ReadonlyRootfs"], false],
  [["HostConfig", "Init"], null],
  [["HostConfig", "CgroupParent"], ""],
  [["HostConfig", "Memory"], 0],
  [["HostConfig", "MemorySwap"], -1],
  [["HostConfig", "MemorySwappiness"], null],
  [["HostConfig", "MemoryReservation"], 1],
  [["HostConfig", "CpuQuota"], 0],
  [["HostConfig", "CpuPeriod"], 50_000],
  [["HostConfig", "CpuShares"], 1_024],
  [["HostConfig", "CpuRealtimeRuntime"], 1],
  [["HostConfig", "PidsLimit"], null],
  [["HostConfig", "ShmSize"], 67_108_864],
  [["HostConfig", "Tmpfs"], null],
  [["HostConfig", "Tmpfs", "/tmp"], ""],
  [["HostConfig", "Tmpfs", "/run"], "size=1"],
  [["HostConfig", "Ulimits"], null],
  [["HostConfig", "Ulimits", 0], { Name: "nofile", Soft: 1_024, Hard: 1_048_576 }],
  [["HostConfig", "BlkioDeviceReadBps"], null],
  [["HostConfig", "BlkioDeviceWriteIOps"], [{ Path: "/dev/vdb", Rate: 500 }]],
  [["HostConfig", "LogConfig"], { Type: "journald", Config: {} }],
  [["HostConfig", "LogConfig", "Config", "max-size"], "1g"],
  [["HostConfig", "RestartPolicy"], { Name: "always", MaximumRetryCount: 0 }],
  [["HostConfig", "AutoRemove"], true],
  [["HostConfig", "KeyOfALaterEngine"], { anything: true }],
];

describe("comparing a container with its plan", () => {
  test("finds nothing in what a real engine made of the plan", () => {
    expect(findMismatches(plan, inspected())).toEqual([]);
  });

  test.each(loosenings)("sees %j set to %j", (path, value) => {
    const fields = findMismatches(plan, with_(path, value)).map((mismatch) => mismatch.field);
    const shown = path.filter((key) => typeof key === "string").join(".");
    expect(fields).toHaveLength(1);
    expect(shown.startsWith(fields[0] ?? "") || fields[0]?.startsWith(shown)).toBe(true);
  });

  test("accepts log options and ulimits that the engine's own configuration adds", () => {
    const info = inspected();
    info.HostConfig.Ulimits?.push({ Name: "memlock", Soft: 1, Hard: 1 });
    if (info.HostConfig.LogConfig) info.HostConfig.LogConfig.Config.compress = "true";
    expect(findMismatches(plan, info)).toEqual([]);
  });

  test("names a foreign filter without repeating ours, and no variable's value", () => {
    const foreign = findMismatches(plan, with_(["HostConfig", "SecurityOpt"], ["seccomp=unconfined"]));
    expect(foreign[0]?.expected).toMatch(/^\["no-new-privileges","seccomp=sha256:[0-9a-f]{64}"\]$/);
    const secret = findMismatches(plan, with_(["Config", "Env"], ["GREETING=password", "HOME=/tmp"]));
    expect(JSON.stringify(secret)).not.toContain("password");
  });
});

describe("the engine's warnings", () => {
  test.each([
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
    "Your kernel does not support pids limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
  ])("count where a limit was dropped: %s", (warning) => {
    expect(limitWarnings(["something else", warning])).toEqual([warning]);
  });

  test("may be absent", () => {
    expect(limitWarnings(null)).toEqual([]);
    expect(limitWarnings(undefined)).toEqual([]);
  });
});
