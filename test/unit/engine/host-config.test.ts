import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ContainerPlan } from "../../../src/engine/container-plan.ts";
import { containerCreateOptions } from "../../../src/engine/host-config.ts";
import { plan } from "./plan.ts";

const limited = (limits: Partial<ContainerPlan["limits"]>): ContainerPlan => ({
  ...plan,
  limits: { ...plan.limits, ...limits },
});

describe("a container's create call", () => {
  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 63])(
    "is refused for a limit of %d",
    (value) => {
      for (const name of Object.keys(plan.limits).filter((key) => key !== "blockIo")) {
        expect(() => containerCreateOptions(limited({ [name]: value })), name).toThrow(RangeError);
      }
      expect(() =>
        containerCreateOptions(limited({ blockIo: { device: "/dev/vda", readBytesPerSecond: value } })),
      ).toThrow(RangeError);
    },
  );

  test.each<Partial<ContainerPlan>>([
    { uid: 0 },
    { uid: 9_999 },
    { gid: 0 },
    { gid: 1e9 },
    { imageId: "alpine:latest" },
    { imageId: `sha256:${"g".repeat(64)}` },
    { name: "-x" },
    { hostname: "a.b\n" },
    { workingDir: "/proc/self/fd/7" },
    { workingDir: "/tmp/../proc" },
    { workingDir: "/sys" },
    { workingDir: "relative" },
    { imageVolumes: ["/"] },
    { imageVolumes: ["/proc/x"] },
    { imageVolumes: ["/a:exec"] },
    { imageVolumes: Array.from({ length: 17 }, (_, index) => `/v${index}`) },
    { cgroupParent: "/a/../b" },
    { cgroupParent: "" },
    { stopGraceSeconds: -1 },
    { stopSignal: "9" },
    { entrypoint: [] },
    { args: ["a\0b"] },
    { env: { "A=B": "" } },
    { env: { "": "x" } },
    { env: { A: "\0" } },
    { runtime: "/bin/sh" },
    { engine: { cgroupVersion: 1, possibleCpus: 0 } },
  ])("is refused for %j", (change) => {
    expect(() => containerCreateOptions({ ...plan, ...change })).toThrow(RangeError);
  });

  test("keeps the sum of rotated logs, each with one line too many, below the plan's bytes", () => {
    const line = 6 * 16 * 1_024 + 512;
    fc.assert(
      fc.property(fc.integer({ min: 1_048_576, max: 2 ** 40 }), (logBytes) => {
        const options = containerCreateOptions(limited({ logBytes })).HostConfig.LogConfig?.Config;
        const [size, files] = [Number(options["max-size"]), Number(options["max-file"])];
        expect(size).toBeGreaterThan(0);
        expect(files * (size + line)).toBeLessThanOrEqual(logBytes);
      }),
    );
  });

  test("gives no swap beside memory, whatever the memory", () => {
    fc.assert(
      fc.property(fc.integer({ min: 6 * 1_024 ** 2, max: 2 ** 45 }), (memoryBytes) => {
        const { Memory, MemorySwap } = containerCreateOptions(limited({ memoryBytes })).HostConfig;
        expect([Memory, MemorySwap]).toEqual([memoryBytes, memoryBytes]);
      }),
    );
  });

  test("asks for a swappiness only where the kernel has one", () => {
    const second = containerCreateOptions({ ...plan, engine: { cgroupVersion: 2, possibleCpus: 1 } });
    expect(containerCreateOptions(plan).HostConfig.MemorySwappiness).toBe(0);
    expect(second.HostConfig).not.toHaveProperty("MemorySwappiness");
  });

  test("bounds each of the image's volumes, /tmp and /dev/shm in bytes and inodes", () => {
    const tmpfs = containerCreateOptions(plan).HostConfig.Tmpfs ?? {};
    expect(Object.keys(tmpfs)).toEqual(["/tmp", "/var/data", "/data2", "/dev/shm"]);
    for (const options of Object.values(tmpfs))
      expect(options).toMatch(/nosuid,nodev,.*size=\d+,nr_inodes=\d+/);
  });

  test("makes /tmp the home and the working directory unless the plan says otherwise", () => {
    expect(containerCreateOptions(plan)).toMatchObject({
      WorkingDir: "/tmp",
      Env: ["HOME=/tmp", "GREETING=hello"],
    });
    const own = containerCreateOptions({ ...plan, env: { HOME: "/h" }, workingDir: "/work" });
    expect(own).toMatchObject({ WorkingDir: "/work", Env: ["HOME=/h"] });
  });

  test("masks the thermal files of each processor that the host may have", () => {
    const paths = containerCreateOptions(plan).HostConfig.MaskedPaths?.filter((path) =>
      path.endsWith("thermal_throttle"),
    );
    expect(paths).toEqual([0, 1].map((cpu) => `/sys/devices/system/cpu/cpu${cpu}/thermal_throttle`));
  });
});
