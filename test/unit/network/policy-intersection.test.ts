import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  canonicalEgress,
  intersectEgress,
  leastLimits,
  mayResolve,
  withinHost,
} from "../../../src/network/intersect.ts";
import type { EgressPolicy } from "../../../src/network/policy.ts";
import { allows, anyName, attempt, policy, resolves } from "./policies.ts";

const web = { protocol: "TCP", first: 443, last: 443 } as const;

function policyOf(change: Partial<EgressPolicy>): EgressPolicy {
  return { scope: "LISTED", ports: [web], allowCidrs: [], denyCidrs: [], allowDomains: [], ...change };
}

const publicPolicy = policyOf({ scope: "PUBLIC" });
const to = (address: string, ...names: string[]) => ({ address, port: 443, protocol: "TCP" as const, names });

describe("what two policies have in common", () => {
  test("is nothing that either refuses", () => {
    let allowed = 0;
    fc.assert(
      fc.property(policy, policy, attempt, (one, other, tried) => {
        if (!allows(intersectEgress(one, other), tried)) return;
        allowed += 1;
        expect([allows(one, tried), allows(other, tried)]).toEqual([true, true]);
      }),
      { numRuns: 3_000 },
    );
    // the property says something only if there is something in common
    expect(allowed).toBeGreaterThan(20);
  });

  test("is all that both allow by address, and all that both allow by one name", () => {
    let both = 0;
    fc.assert(
      fc.property(policy, policy, attempt, (one, other, tried) => {
        const nameless = { ...tried, names: [] };
        const byOneName = { ...tried, names: tried.names.slice(0, 1) };
        const isByAddress = allows(one, nameless) && allows(other, nameless);
        // by address in one and by name in the other cannot be said
        const isByName =
          [one, other].every(
            (each) => each.scope === "PUBLIC" || !allows({ ...each, allowDomains: [] }, tried),
          ) &&
          allows(one, byOneName) &&
          allows(other, byOneName);
        if (!isByAddress && !isByName) return;
        both += 1;
        expect(allows(intersectEgress(one, other), byOneName)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
    expect(both).toBeGreaterThan(20);
  });

  test("answers no name that either does not answer", () => {
    fc.assert(
      fc.property(policy, policy, anyName, (one, other, name) => {
        expect(mayResolve(one, name)).toBe(resolves(one, name));
        if (!mayResolve(intersectEgress(one, other), name)) return;
        expect([resolves(one, name), resolves(other, name)]).toEqual([true, true]);
      }),
      { numRuns: 2_000 },
    );
  });

  test("is the same in either order, with itself, and again", () => {
    fc.assert(
      fc.property(policy, policy, (one, other) => {
        const common = intersectEgress(one, other);
        expect(intersectEgress(other, one)).toEqual(common);
        expect(intersectEgress(one, one)).toEqual(canonicalEgress(one));
        expect(intersectEgress(common, one)).toEqual(common);
        expect(intersectEgress(common, common)).toEqual(common);
      }),
      { numRuns: 2_000 },
    );
  });

  test("of every public address and a list is the list, without what the tenant denies", () => {
    const tenant = policyOf({ scope: "PUBLIC", denyCidrs: ["198.41.0.0/24"] });
    const own = policyOf({ allowCidrs: ["198.41.0.0/16"], allowDomains: ["*.example.com"] });
    expect(intersectEgress(tenant, own)).toEqual({ ...own, denyCidrs: ["198.41.0.0/24"] });
  });

  test("has an address that is not public only if both name it", () => {
    const own = policyOf({ allowCidrs: ["10.0.0.0/8", "198.41.0.0/16"] });
    expect(intersectEgress(publicPolicy, own).allowCidrs).toEqual(["198.41.0.0/16"]);
    const tenant = policyOf({ scope: "PUBLIC", allowCidrs: ["10.1.0.0/16"] });
    expect(intersectEgress(tenant, own).allowCidrs).toEqual(["10.1.0.0/16", "198.41.0.0/16"]);
  });

  test("of two lists of names has the narrower patterns, and answers nothing if there are none", () => {
    const one = policyOf({ allowDomains: ["*.example.com", "example.org"] });
    const other = policyOf({
      allowDomains: ["a.example.com", "*.b.example.com", "example.org", "example.com"],
    });
    expect(intersectEgress(one, other).allowDomains).toEqual([
      "*.b.example.com",
      "a.example.com",
      "example.org",
    ]);
    const apart = intersectEgress(one, policyOf({ allowDomains: ["example.net"] }));
    expect(apart.allowDomains).toEqual([]);
    expect(mayResolve(apart, "example.net")).toBe(false);
  });

  test("has server names checked if either has, and some are left", () => {
    const one = policyOf({ allowDomains: ["*.example.com"], checkSni: true });
    const other = policyOf({ allowDomains: ["a.example.com"] });
    for (const both of [intersectEgress(one, other), intersectEgress(other, one)])
      expect(both).toEqual({ ...other, checkSni: true });
    expect(intersectEgress(publicPolicy, one)).toEqual(one);
    expect(canonicalEgress(one)).toEqual(one);
    const apart = intersectEgress(one, policyOf({ allowDomains: ["example.net"] }));
    expect(apart).not.toHaveProperty("checkSni");
    expect(intersectEgress(other, other)).not.toHaveProperty("checkSni");
  });

  test("does not open by name what the other allows by address only", () => {
    const byName = policyOf({ allowDomains: ["example.com"] });
    const byAddress = policyOf({ allowCidrs: ["198.41.0.0/16"] });
    const tried = to("198.42.0.1", "example.com");
    expect(allows(byName, tried)).toBe(true);
    expect(allows(intersectEgress(byName, byAddress), tried)).toBe(false);
  });

  test("of ports apart is no port at all", () => {
    const ssh = policyOf({ scope: "PUBLIC", ports: [{ protocol: "TCP", first: 22, last: 22 }] });
    expect(intersectEgress(publicPolicy, ssh).ports).toEqual([]);
    const udp = policyOf({ scope: "PUBLIC", ports: [{ protocol: "UDP", first: 443, last: 443 }] });
    expect(intersectEgress(publicPolicy, udp).ports).toEqual([]);
  });
});

describe("the canonical form", () => {
  test("allows the same", () => {
    fc.assert(
      fc.property(policy, attempt, (one, tried) => {
        expect(allows(canonicalEgress(one), tried)).toBe(allows(one, tried));
      }),
      { numRuns: 3_000 },
    );
  });

  test("is one for policies that say the same in other words", () => {
    const one = policyOf({
      ports: [
        { protocol: "TCP", first: 443, last: 443 },
        { protocol: "TCP", first: 80, last: 90 },
        { protocol: "TCP", first: 85, last: 100 },
      ],
      allowCidrs: ["198.41.1.0/24", "198.41.0.0/24", "198.41.0.7/32"],
      allowDomains: ["b.example.com", "*.example.com", "a.com", "a.com"],
    });
    const other = policyOf({
      ports: [
        { protocol: "TCP", first: 80, last: 100 },
        { protocol: "TCP", first: 443, last: 443 },
      ],
      allowCidrs: ["198.41.0.0/23"],
      allowDomains: ["a.com", "*.example.com"],
    });
    expect(canonicalEgress(one)).toEqual(canonicalEgress(other));
    expect(JSON.stringify(canonicalEgress(one))).toBe(JSON.stringify(canonicalEgress(other)));
  });

  test("does not name what is public where all of that is allowed", () => {
    const named = policyOf({ scope: "PUBLIC", allowCidrs: ["8.8.8.0/24"] });
    expect(canonicalEgress(named)).toEqual(canonicalEgress(publicPolicy));
  });
});

test("a host that no longer allows a private block takes it out of what policies allow", () => {
  const own = policyOf({ allowCidrs: ["10.0.0.0/8", "198.41.0.0/16"] });
  expect(withinHost(own, []).allowCidrs).toEqual(["198.41.0.0/16"]);
  expect(withinHost(own, ["10.7.0.0/16"]).allowCidrs).toEqual(["10.7.0.0/16", "198.41.0.0/16"]);
});

test("of each bound the lower one holds, and one that is absent bounds nothing", () => {
  expect(
    leastLimits({ connections: 5, packetsPerSecond: 100 }, { connections: 7, newConnectionsPerSecond: 3 }),
  ).toEqual({
    connections: 5,
    newConnectionsPerSecond: 3,
    packetsPerSecond: 100,
  });
  expect(leastLimits({}, {})).toEqual({});
});
