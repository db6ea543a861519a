import { describe, expect, test } from "vitest";
import { difference, elementsOf } from "../../../../src/network/firewall/elements.ts";
import type { FirewallChange } from "../../../../src/network/firewall/rules.ts";
import { transition, wholeTables } from "../../../../src/network/firewall/ruleset.ts";
import { bridge, egressOf, sandbox, stateOf } from "./policies.ts";

const options = {
  table: "sandboxd_0a1b2c3d",
  pools: ["10.77.0.0/16"],
  questionsPerSecond: 100,
  sniPort: 10_443,
};

/** What is in each set. */
function setsOf(...changes: readonly FirewallChange[]) {
  const elements = elementsOf(stateOf(...changes), options.pools);
  const bySet = Map.groupBy(elements, ({ set }) => set);
  return Object.fromEntries(
    [...bySet].map(([set, all]) => [set, all.map(({ key, rest }) => `${key}${rest}`)]),
  );
}

/** Without numbers of policies. */
const anonymous = (texts: readonly string[] = []) => texts.map((text) => text.replaceAll(/\b\d{4,}\b/g, "N"));

describe("the tables", () => {
  test("replace in one transaction what was there", () => {
    const script = wholeTables(stateOf(), options);
    for (const family of ["inet", "bridge"]) {
      const [made, gone] = [
        `table ${family} ${options.table} {\n}\n`,
        `delete table ${family} ${options.table}\n`,
      ];
      expect(script).toContain(`${made}${gone}`);
      expect(script.split(`table ${family} ${options.table} {`)).toHaveLength(3);
    }
  });

  test("have as many rules for a thousand sandboxes as for none", () => {
    const many = Array.from({ length: 1_000 }, (_, index) => ({
      ...sandbox(`s${index}`, 0, { egress: egressOf({ denyCidrs: [`192.0.2.${index % 200}/32`] }) }),
      address: `10.77.${Math.floor(index / 200) + 1}.${(index % 200) + 2}`,
    }));
    const linesOf = (script: string) => script.slice(0, script.indexOf("\nadd element")).split("\n").length;
    const none = wholeTables(stateOf(), options);
    const full = wholeTables(stateOf({ putBridges: [bridge], put: many }), options);
    expect(linesOf(full)).toBe(linesOf(none));
    expect(full.length).toBeGreaterThan(none.length);
  });

  test("a sandbox is known by bridge and address, and by its hardware address", () => {
    const sets = setsOf({ putBridges: [bridge], put: [sandbox("a", 2)] });
    expect(sets).toMatchObject({
      "inet bridges": ['"sbx0a"'],
      "inet gateways": ['"sbx0a" . 10.77.0.1'],
      "inet sandboxes": ['"sbx0a" . 10.77.0.2 : 255'],
      "bridge places": ["06:73:0a:4d:00:02 . 10.77.0.2"],
      "bridge macs": ["06:73:0a:4d:00:00-06:73:0a:4d:00:0f"],
    });
    expect(sets).not.toHaveProperty("bridge peers");
    expect(setsOf({ putBridges: [{ ...bridge, peers: true }] })).toMatchObject({
      "inet peers": ['"sbx0a" . "sbx0a"'],
      "bridge peers": ["06:73:0a:4d:00:00-06:73:0a:4d:00:0f"],
    });
  });

  test("a policy is ports and blocks, merged", () => {
    const egress = egressOf({
      ports: [
        { protocol: "UDP", first: 53, last: 53 },
        { protocol: "TCP", first: 8_000, last: 8_010 },
        { protocol: "TCP", first: 8_005, last: 8_020 },
      ],
      allowCidrs: ["192.168.0.0/24", "192.168.1.0/24", "10.1.2.3/32"],
      denyCidrs: ["8.8.8.8/32"],
    });
    const sets = setsOf({ put: [sandbox("a", 2, { egress })] });
    expect(anonymous(sets["inet ports"])).toEqual(["N . tcp . N-N", "N . udp . 53"]);
    expect(sets["inet ports"]?.[0]).toContain("8000-8020");
    expect(anonymous(sets["inet allowed"])).toEqual(["N . 10.1.2.3", "N . 192.168.0.0/23"]);
    expect(anonymous(sets["inet refused"])).toEqual(["N . 8.8.8.8"]);
    expect(anonymous(sets["inet public"])).toEqual(["N"]);
  });

  test("a proxy is one address and one port of TCP, whatever else the policy says", () => {
    const egress = {
      ...egressOf({ allowCidrs: ["10.0.0.0/8"] }),
      proxy: { address: "10.1.2.3", port: 3_128 },
    };
    const sets = setsOf({ put: [sandbox("a", 2, { egress })] });
    expect(sets["inet ports"]?.map((text) => text.replace(/^\d+/, "N"))).toEqual(["N . tcp . 3128"]);
    expect(anonymous(sets["inet allowed"])).toEqual(["N . 10.1.2.3"]);
    expect(sets).toHaveProperty(["inet proxied"]);
    expect(sets).not.toHaveProperty(["inet public"]);
  });

  test("nothing that is reserved, and no pool, is public", () => {
    const { "inet reserved": reserved } = setsOf();
    expect(reserved).toContain("10.0.0.0/8");
    expect(reserved).toContain("169.254.0.0/16");
    expect(reserved).toContain("224.0.0.0/3");
    const elements = elementsOf(stateOf(), ["45.0.0.0/16"]);
    expect(elements.filter(({ key }) => key === "45.0.0.0/16").map(({ set }) => set)).toEqual([
      "inet pools",
      "inet reserved",
    ]);
  });

  test("bounds are of elements", () => {
    const limits = { packetsPerSecond: 1_000, newConnectionsPerSecond: 20, connections: 50 };
    expect(setsOf({ put: [sandbox("a", 2, { limits }), sandbox("b", 3)] })).toMatchObject({
      "inet packets": ['"sbx0a" . 10.77.0.2 limit rate over 1000/second burst 250 packets'],
      "inet rates": ['"sbx0a" . 10.77.0.2 limit rate over 20/second burst 20 packets'],
      "inet connections": ['"sbx0a" . 10.77.0.2 ct count over 50'],
    });
  });
});

describe("a change", () => {
  const before = { putBridges: [bridge], put: [sandbox("a", 2, { egress: egressOf() }), sandbox("b", 3)] };
  const scriptOf = (change: FirewallChange) =>
    transition(difference(stateOf(before), stateOf(before, change)), options.table);

  test("touches what changes and nothing else", () => {
    expect(scriptOf({})).toBe("");
    expect(scriptOf(before)).toBe("");
    expect(scriptOf({ put: [sandbox("c", 4)] })).toBe(
      `add element inet ${options.table} sandboxes {\n"sbx0a" . 10.77.0.4 : 255\n}\n` +
        `add element bridge ${options.table} places {\n06:73:0a:4d:00:04 . 10.77.0.4\n}\n`,
    );
    expect(scriptOf({ remove: ["b"] })).not.toContain("10.77.0.2");
  });

  test("takes a sandbox's policy away and gives it another within one transaction", () => {
    const script = scriptOf({ put: [sandbox("a", 2, { egress: egressOf({ denyCidrs: ["1.0.0.0/8"] }) })] });
    const [gone, come] = ["delete", "add"].map((verb) =>
      script.indexOf(`${verb} element inet ${options.table} sandboxes`),
    );
    expect(gone).toBeGreaterThanOrEqual(0);
    expect(come).toBeGreaterThan(gone ?? 0);
    expect(script).not.toContain("places");
    expect(script).not.toContain("10.77.0.3");
  });

  test("a bound is taken away by its key", () => {
    const bound = { put: [sandbox("b", 3, { limits: { connections: 5 } })] };
    const script = transition(
      difference(stateOf(before, bound), stateOf(before, bound, before)),
      options.table,
    );
    expect(script).toBe(`delete element inet ${options.table} connections {\n"sbx0a" . 10.77.0.3\n}\n`);
  });
});
