import { describe, expect, test } from "vitest";
import { firstDifference } from "../../../../src/network/firewall/audit.ts";
import { elementId, elementsOf } from "../../../../src/network/firewall/elements.ts";
import { readListing } from "../../../../src/network/firewall/listing.ts";
import { ruleCount } from "../../../../src/network/firewall/ruleset.ts";
import { bridge, egressOf, sandbox, stateOf } from "./policies.ts";

const pools = ["10.77.0.0/16"];
const output = (...entries: readonly object[]) =>
  JSON.stringify({ nftables: [{ metainfo: {} }, ...entries] });
const setOf = (name: string, elem: unknown, handle = 1) => ({
  set: { family: "inet", name, table: "t", type: "mark", handle, elem },
});
const rule = (chain: string, expr: string, handle = 1) => ({
  rule: { family: "inet", table: "t", chain, handle, expr: [{ [expr]: null }] },
});

describe("a listing of nft", () => {
  test("has elements as they were asked for", () => {
    const { sets } = readListing([
      output(
        setOf("bounded", [
          {
            elem: {
              val: { concat: ["sbx0a", "10.77.0.2"] },
              limit: { rate: 5, burst: 9, per: "second", inv: true },
            },
          },
          { elem: { val: { concat: ["sbx0a", "10.77.0.3"] }, "ct count": { val: 5, inv: true } } },
        ]),
        setOf("blocks", [
          "1.1.1.1",
          { prefix: { addr: "10.0.0.0", len: 8 } },
          { concat: [7, "tcp", { range: [1, 9] }] },
        ]),
        {
          map: {
            family: "inet",
            name: "map",
            table: "t",
            elem: [[{ concat: ["sbx0a", "10.77.0.2"] }, 4_000_000_000]],
          },
        },
        setOf("counted", [
          { elem: { val: { concat: ["06:73:00:00:00:01", 1] }, expires: 9, counter: { packets: 3 } } },
        ]),
      ),
    ]);
    const ids = (name: string) => sets.get(`inet ${name}`)?.map(({ id }) => id);
    expect(ids("bounded")).toEqual([
      "sbx0a . 10.77.0.2 limit rate over 5/second burst 9 packets",
      "sbx0a . 10.77.0.3 ct count over 5",
    ]);
    expect(ids("blocks")).toEqual(["1.1.1.1", "10.0.0.0/8", "7 . tcp . 1-9"]);
    expect(ids("map")).toEqual(["sbx0a . 10.77.0.2 : 4000000000"]);
    expect(sets.get("inet counted")).toEqual([
      { parts: ["06:73:00:00:00:01", "1"], id: "06:73:00:00:00:01 . 1", packets: 3, expires: 9 },
    ]);
  });

  test("has the same structure whatever is in the sets, and another with another rule", () => {
    const of = (...entries: readonly object[]) => readListing([output(...entries)]).structure;
    const one = of(setOf("a", ["1"]), rule("forward", "accept"));
    expect(of(setOf("a", ["2"], 9), rule("forward", "accept", 7))).toBe(one);
    expect(of(setOf("a", ["1"]), rule("forward", "accept"), rule("signal", "return"))).toBe(one);
    expect(of(setOf("a", ["1"]), rule("forward", "drop"))).not.toBe(one);
    expect(of(setOf("a", ["1"]), rule("forward", "accept"), rule("forward", "accept"))).not.toBe(one);
  });

  test("what is no listing is not taken for one", () => {
    expect(() => readListing(["{}"])).toThrow("no listing");
  });
});

describe("the comparison with the kernel", () => {
  const state = stateOf({ putBridges: [bridge], put: [sandbox("a", 2, { egress: egressOf() })] });
  const sets = () =>
    new Map(
      [...Map.groupBy(elementsOf(state, pools), ({ set }) => set)].map(([set, elements]) => [
        set,
        elements.map((one) => ({ parts: [], id: elementId(one) })),
      ]),
    );
  const listing = { structure: "s", rules: ruleCount, sets: sets() };
  const compare = (change: Partial<typeof listing>) =>
    firstDifference({ ...listing, ...change }, state, pools, "s");

  test("finds nothing where all is as it should be", () => {
    expect(compare({})).toBeUndefined();
    const filled = new Map([...sets(), ["inet learned", [{ parts: [], id: "7 . 1.1.1.1" }]]]);
    expect(compare({ sets: filled })).toBeUndefined();
  });

  test("finds rules and elements that are missing, others, or too many", () => {
    expect(compare({ rules: ruleCount - 1 })).toMatch(/rules in place of/);
    expect(compare({ structure: "another" })).toMatch(/not the same/);
    const without = sets();
    without.set("inet bridges", []);
    expect(compare({ sets: without })).toMatch(/missing in set inet bridges/);
    const stranger = sets();
    stranger.set("inet peers", [{ parts: [], id: "sbx0a . eth0" }]);
    expect(compare({ sets: stranger })).toBe("sbx0a . eth0 in set inet peers");
    const less = sets();
    less.delete("bridge places");
    expect(compare({ sets: less })).toMatch(/bridge places is missing/);
  });
});
