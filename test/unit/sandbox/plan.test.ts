import { describe, expect, test } from "vitest";
import { cgroupParentOf, cpuRequestOf, parentOf, planOf, sharesOf } from "../../../src/sandbox/plan.ts";
import { recordOf } from "./fixture.ts";
import { hostId, labels } from "./reconciled.ts";

const host = { hostId, cgroupVersion: 2, possibleCpus: 4, blockDevice: undefined } as const;

describe("the cgroup above a sandbox", () => {
  test("is its tenant's, below that of all, under either driver", () => {
    expect(parentOf("/sandboxd", 300_001)).toBe("/sandboxd/300001");
    expect(parentOf("a-b.slice", 300_001)).toBe("a-b-300001.slice");
    const plan = planOf(recordOf({ isInTenantCgroup: true }), { ...host, cgroupParent: "/p" }, labels);
    expect(plan.cgroupParent).toBe("/p/20001");
  });

  test("stays that of all where an earlier release made its container", () => {
    expect(cgroupParentOf(recordOf(), { cgroupParent: "/p" })).toBe("/p");
    expect(planOf(recordOf(), { ...host, cgroupParent: "p.slice" }, labels).cgroupParent).toBe("p.slice");
  });

  test("is what its labels say, when the state is lost", () => {
    const identity = labels.decode(labels.encode(recordOf({ isInTenantCgroup: true })));
    expect(identity?.isInTenantCgroup).toBe(true);
    expect(labels.decode(labels.encode(recordOf()))).not.toHaveProperty("isInTenantCgroup");
  });
});

describe("the toolbox of a sandbox", () => {
  const toolbox = { volume: "v", source: "/t/0123456789abcdef", identity: { device: 1, inode: 2 } };
  const place = { ...host, cgroupParent: "/p", toolboxAt: () => toolbox };
  const record = recordOf({ toolbox: "0123456789abcdef" });

  test("is that of its record, and none where its record has none", () => {
    expect(planOf(record, place, labels).toolbox).toEqual(toolbox);
    expect(planOf(recordOf(), place, labels)).not.toHaveProperty("toolbox");
  });

  test("is what its labels say, when the state is lost, and a container of an earlier release has the labels that it had", () => {
    expect(labels.decode(labels.encode(record))?.toolbox).toBe("0123456789abcdef");
    expect(labels.encode(recordOf())["sandboxd.record"]).not.toContain("toolbox");
  });

  test("keeps its place from a VOLUME of the image", () => {
    const imageVolumes = ["/.sandboxd/run"];
    const refusal = expect.objectContaining({ reason: "IMAGE_UNSUPPORTED" });
    expect(() => planOf({ ...record, imageVolumes }, place, labels)).toThrow(refusal);
    expect(() => planOf(recordOf({ imageVolumes }), place, labels)).not.toThrow();
  });
});

test.each([
  [1, 2],
  [250, 256],
  [1_000, 1_024],
  [1_000_000, 262_144],
])("a request of %i millicores weighs %i shares", (request, shares) => {
  expect(sharesOf(request)).toBe(shares);
  if (shares > 2 && shares < 262_144) expect(cpuRequestOf(shares)).toBe(request);
});
