import { describe, expect, test } from "vitest";
import {
  createFence,
  fencedBlocks,
  fenceSteps,
  type RoutingRule,
} from "../../../../src/network/firewall/fence.ts";

const local: RoutingRule = { priority: 0, src: "all", table: "local" };
const spare: RoutingRule = { priority: 1, src: "all", table: "local" };
const others: readonly RoutingRule[] = [
  { priority: 32_766, src: "all", table: "main" },
  { priority: 32_767, src: "all", table: "default" },
];
const ours: readonly RoutingRule[] = [
  { priority: 0, src: "10.77.0.0", srclen: 16, iif: "lo", table: "local", protocol: "115" },
  { priority: 0, src: "10.77.0.0", srclen: 16, iif: "lo", table: "main", protocol: "115" },
  {
    priority: 0,
    src: "10.77.0.0",
    srclen: 16,
    fwmark: "0",
    fwmask: "0x1000",
    action: "blackhole",
    protocol: "115",
  },
];
const pools = ["10.77.0.0/16"];

/** A kernel's list of rules, on which steps work as `ip rule` does. */
function kernel(...initial: readonly RoutingRule[]) {
  let rules = [...initial];
  const text = ({ src, srclen, iif, fwmask, table, action }: RoutingRule) =>
    [
      `from ${src === "all" ? src : `${src}/${srclen}`}`,
      ...(iif === undefined ? [] : ["iif", iif]),
      ...(fwmask === undefined ? [] : ["fwmark", `0/${fwmask}`]),
      ...(action === undefined ? ["lookup", table] : [action]),
    ].join(" ");
  const least: number[] = [];
  const step = (words: string) => {
    const [, verb, priority, rest = ""] = /^(add|del) pref (\d+) (.*?)( protocol \w+)?$/.exec(words) ?? [];
    const found = rules.findIndex((rule) => rule.priority === Number(priority) && text(rule) === rest);
    if (verb === "del") {
      if (found < 0) throw new Error(`no rule ${words}`);
      rules = rules.toSpliced(found, 1);
    } else {
      if (found >= 0) throw new Error(`there is ${words}`);
      const made = [...ours, local].find((rule) => text(rule) === rest);
      const next = rules.findIndex((rule) => (rule.priority ?? 0) > Number(priority));
      rules = rules.toSpliced(next, 0, { ...made, priority: Number(priority) });
    }
    least.push(rules.filter((rule) => rule.table === "local" && rule.src === "all").length);
  };
  return { step, rules: () => rules, least: () => Math.min(...least) };
}

describe("the fence", () => {
  test.each([
    ["nothing is there", [local, ...others]],
    ["all is there, behind the rule that delivers to the host", [local, ...ours, ...others]],
    ["some of it is there, in the wrong order", [...ours.toReversed().slice(0, 2), local, ...others]],
    ["another life ended halfway", [...ours, spare, ...others]],
    ["another life ended at the last step", [...ours, local, spare, ...others]],
    ["all is there, and someone made the first rule anew", [local, ...ours, spare, ...others]],
  ])("stands before the host's own rule, which is never missing meanwhile: %s", (_, rules) => {
    const machine = kernel(...rules);
    for (const step of fenceSteps(rules, pools, pools)) machine.step(step);
    expect(machine.rules()).toEqual([...ours, local, ...others]);
    expect(machine.least()).toBeGreaterThanOrEqual(1);
  });

  test("nothing is done where it stands", () => {
    expect(fenceSteps([...ours, local, ...others], pools, pools)).toEqual([]);
  });

  test("each pool has one", () => {
    const both = [...pools, "10.80.0.0/12"];
    const steps = fenceSteps([...ours, local, ...others], both, both);
    expect(steps.filter((step) => step.includes("10.77"))).toEqual([]);
    expect(steps.filter((step) => step.includes("blackhole"))).toHaveLength(1);
  });

  test("what the machine routes elsewhere is not in it", () => {
    const routes = [
      "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
      "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0",
      "eth0\t00804D0A\t00000000\t0001\t0\t0\t0\t0080FFFF\t0\t0\t0",
      "sbx0a\t00004D0A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0",
    ].join("\n");
    const blocks = fencedBlocks(pools, routes);
    expect(blocks).toEqual(["10.77.0.0/17"]);
    // and is taken out of it, but not what another daemon has for its own pools
    const foreign = ours.map((rule) => ({ ...rule, src: "10.99.0.0" }));
    const machine = kernel(...foreign, ...ours, local, ...others);
    const steps = fenceSteps(machine.rules(), blocks, pools);
    expect(steps.filter((step) => step.startsWith("del") && step.includes("10.77.0.0/16"))).toHaveLength(3);
    expect(steps.filter((step) => step.startsWith("add") && step.includes("10.77.0.0/17"))).toHaveLength(3);
    expect(steps.join()).not.toContain("10.99");
  });

  test("what `ip` cannot do is told", async () => {
    const fence = createFence({ pools, run: () => Promise.reject(new Error("ip: is not on this host")) });
    await expect(fence.ensure()).rejects.toThrow("is not on this host");
  });
});
