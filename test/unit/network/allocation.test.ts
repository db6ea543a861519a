import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { overlaps, parseCidr } from "../../../src/network/addresses.ts";
import { chooseNet, choosePlace, type TenantNet } from "../../../src/network/allocation.ts";

const rules = { hostId: "host-1", pools: ["10.213.0.0/28", "10.214.0.0/28"], subnetPrefix: 29 };
const block = (text: string) => {
  const found = parseCidr(text);
  if (found === undefined) throw new Error(text);
  return found;
};

describe("a subnet", () => {
  test("is cut from the pools in order, and overlaps no other", () => {
    const nets: TenantNet[] = [];
    for (const tenant of ["a", "b", "c", "d"]) nets.push(chooseNet(tenant, rules, nets, []));
    expect(nets.map(({ subnet }) => subnet)).toEqual([
      "10.213.0.0/29",
      "10.213.0.8/29",
      "10.214.0.0/29",
      "10.214.0.8/29",
    ]);
    expect(nets.map(({ gateway }) => gateway)).toEqual([
      "10.213.0.1",
      "10.213.0.9",
      "10.214.0.1",
      "10.214.0.9",
    ]);
    expect(() => chooseNet("e", rules, nets, [])).toThrow(
      expect.objectContaining({ reason: "ADDRESS_EXHAUSTED" }),
    );
  });

  test("is not where the machine routes something else", () => {
    const net = chooseNet("a", rules, [], [block("10.213.0.0/29"), block("10.213.0.12/32")]);
    expect(net.subnet).toBe("10.214.0.0/29");
  });

  test("is found again by its tenant's name, and told from another host's", () => {
    const net = chooseNet("a", rules, [], []);
    expect(chooseNet("a", rules, [], [])).toEqual(net);
    const other = chooseNet("a", { ...rules, hostId: "host-2" }, [], []);
    expect(other.bridge).not.toBe(net.bridge);
    expect(other.network).not.toBe(net.network);
    expect(net.bridge).toMatch(/^sbx[0-9a-f]{8}$/);
  });

  test("never overlaps, whatever is in the way", () => {
    const blocks = fc
      .record({ base: fc.integer({ min: 0, max: 255 }), prefix: fc.integer({ min: 20, max: 32 }) })
      .map(({ base, prefix }) => {
        const size = 2 ** (32 - prefix);
        return { base: Math.floor((block("10.50.0.0/16").base + base * 16) / size) * size, prefix };
      });
    fc.assert(
      fc.property(
        fc.array(blocks, { maxLength: 12 }),
        fc.integer({ min: 24, max: 29 }),
        (avoid, subnetPrefix) => {
          const pool = block("10.50.0.0/20");
          const any = { hostId: "h", pools: ["10.50.0.0/20"], subnetPrefix };
          const isFree = (base: number) =>
            !avoid.some((one) => overlaps(one, { base, prefix: subnetPrefix }));
          const size = 2 ** (32 - subnetPrefix);
          const bases = Array.from({ length: 4096 / size }, (_, index) => pool.base + index * size);
          const first = bases.find(isFree);
          if (first === undefined) expect(() => chooseNet("t", any, [], avoid)).toThrow();
          else expect(block(chooseNet("t", any, [], avoid).subnet).base).toBe(first);
        },
      ),
    );
  });
});

describe("an address", () => {
  const net = chooseNet("a", rules, [], []);

  test("is neither the network's, nor the gateway's, nor the last", () => {
    const taken = new Set<string>();
    let last: string | undefined;
    for (let count = 0; count < 5; count += 1) {
      last = choosePlace(net, taken, last).address;
      taken.add(last);
    }
    expect([...taken]).toEqual(["10.213.0.2", "10.213.0.3", "10.213.0.4", "10.213.0.5", "10.213.0.6"]);
    expect(() => choosePlace(net, taken, last)).toThrow(
      expect.objectContaining({ reason: "ADDRESS_EXHAUSTED" }),
    );
  });

  test("of one that is gone comes last again", () => {
    expect(choosePlace(net, new Set(), "10.213.0.2").address).toBe("10.213.0.3");
    expect(choosePlace(net, new Set(), "10.213.0.6").address).toBe("10.213.0.2");
    expect(choosePlace(net, new Set(["10.213.0.3", "10.213.0.4", "10.213.0.5"]), "10.213.0.2").address).toBe(
      "10.213.0.6",
    );
  });

  test("is in the hardware address", () => {
    expect(choosePlace(net, new Set(), undefined).mac).toBe("06:73:0a:d5:00:02");
  });
});
