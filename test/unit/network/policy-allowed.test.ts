import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { checkAllowed, checkMode } from "../../../src/network/allowed.ts";
import { intersectEgress } from "../../../src/network/intersect.ts";
import {
  defaultEgress,
  type EgressPolicy,
  noNetwork,
  type SandboxNetworkSpec,
  type TenantNetwork,
} from "../../../src/network/policy.ts";
import { allows, attempt, policy } from "./policies.ts";

const web = { protocol: "TCP", first: 443, last: 443 } as const;
const proxies = { web: { name: "web", address: "10.0.0.5", port: 3128, noProxy: [] } };

function tenantOf(change: Partial<TenantNetwork> = {}): TenantNetwork {
  return { ...noNetwork, modes: ["NONE", "EGRESS"], ...change };
}

const listed = (change: Partial<EgressPolicy>): EgressPolicy => ({
  ...defaultEgress,
  scope: "LISTED",
  ...change,
});

/** The refusal, as its reason and what it says of each field. */
function refusal(network: TenantNetwork, spec: Partial<SandboxNetworkSpec>, at: "spec." | "" = "spec.") {
  try {
    checkAllowed({ networkMode: "EGRESS", ...spec }, { tenant: "acme", network }, proxies, at);
    return undefined;
  } catch (error) {
    if (!(error instanceof SandboxdError)) throw error;
    const fields = error.details.fields ?? [];
    for (const { field, description } of fields) expect(error.message).toContain(`${field}: ${description}`);
    return {
      reason: error.reason,
      fields: fields.map(({ field, description }) => `${field}: ${description}`),
      hint: error.details.hint,
    };
  }
}

describe("a sandbox's policy within its tenant's", () => {
  test.each<[string, EgressPolicy, EgressPolicy]>([
    ["the same", defaultEgress, defaultEgress],
    [
      "a list within every public address",
      defaultEgress,
      listed({ allowCidrs: ["8.8.8.0/24"], allowDomains: ["example.com"] }),
    ],
    ["nothing", defaultEgress, listed({})],
    ["more denied", defaultEgress, { ...defaultEgress, denyCidrs: ["8.8.8.8/32"] }],
    [
      "ports over two ranges that are adjacent",
      {
        ...defaultEgress,
        ports: [
          { protocol: "TCP", first: 80, last: 90 },
          { protocol: "TCP", first: 91, last: 99 },
        ],
      },
      { ...defaultEgress, ports: [{ protocol: "TCP", first: 85, last: 95 }] },
    ],
    [
      "a name below a wildcard",
      listed({ allowDomains: ["*.example.com"] }),
      listed({ allowDomains: ["*.a.example.com", "b.example.com"] }),
    ],
    [
      "a private block in a larger one",
      listed({ allowCidrs: ["10.0.0.0/8"] }),
      listed({ allowCidrs: ["10.1.2.0/24"] }),
    ],
    [
      "a block that is denied in part",
      { ...defaultEgress, denyCidrs: ["8.8.8.8/32"] },
      listed({ allowCidrs: ["8.8.8.0/24"] }),
    ],
  ])("%s is allowed", (_, egress, asked) => {
    expect(refusal(tenantOf({ egress }), { egress: asked })).toBeUndefined();
  });

  test.each<[string, EgressPolicy, EgressPolicy, string]>([
    [
      "another port",
      defaultEgress,
      { ...defaultEgress, ports: [web, { protocol: "TCP", first: 22, last: 22 }] },
      "spec.egress.ports[1]: TCP 22 is not in the tenant's TCP 443",
    ],
    [
      "another protocol",
      defaultEgress,
      { ...defaultEgress, ports: [{ protocol: "UDP", first: 443, last: 443 }] },
      "spec.egress.ports[0]: UDP 443 is not in the tenant's TCP 443",
    ],
    [
      "a range that begins within",
      { ...defaultEgress, ports: [{ protocol: "TCP", first: 80, last: 90 }] },
      { ...defaultEgress, ports: [{ protocol: "TCP", first: 85, last: 95 }] },
      "spec.egress.ports[0]: TCP 85-95 is not in the tenant's TCP 80-90",
    ],
    [
      "every public address",
      listed({ allowCidrs: ["8.8.8.0/24"] }),
      defaultEgress,
      "spec.egress.scope: every public address is more than what the tenant's policy lists",
    ],
    [
      "a larger block",
      listed({ allowCidrs: ["8.8.8.0/24"] }),
      listed({ allowCidrs: ["8.8.8.0/24", "8.8.8.0/23"] }),
      "spec.egress.allow_cidrs[1]: 8.8.8.0/23 has addresses that the tenant's policy does not allow by CIDR, as 8.8.9.0",
    ],
    [
      "a private block under every public address",
      defaultEgress,
      listed({ allowCidrs: ["10.0.0.0/24"] }),
      "spec.egress.allow_cidrs[0]: 10.0.0.0/24 has addresses that the tenant's policy does not allow by CIDR, as 10.0.0.0",
    ],
    [
      "a block that is denied",
      { ...defaultEgress, denyCidrs: ["8.8.0.0/16"] },
      listed({ allowCidrs: ["8.8.8.0/24"] }),
      "spec.egress.allow_cidrs[0]: 8.8.8.0/24 is in the tenant's deny_cidrs",
    ],
    [
      "another name",
      listed({ allowDomains: ["*.example.com"] }),
      listed({ allowDomains: ["a.example.com", "example.com"] }),
      "spec.egress.allow_domains[1]: example.com is not in the tenant's allow_domains",
    ],
    [
      "a wildcard where one name is allowed",
      listed({ allowDomains: ["a.example.com"] }),
      listed({ allowDomains: ["*.example.com"] }),
      "spec.egress.allow_domains[0]: *.example.com is not in the tenant's allow_domains",
    ],
    [
      "a name where addresses are listed",
      listed({ allowCidrs: ["8.8.8.0/24"] }),
      listed({ allowDomains: ["example.com"] }),
      "spec.egress.allow_domains[0]: example.com is not in the tenant's allow_domains",
    ],
  ])("%s is refused", (_, egress, asked, expected) => {
    expect(refusal(tenantOf({ egress }), { egress: asked })).toMatchObject({
      reason: "NETWORK_NOT_ALLOWED",
      fields: [expected],
    });
  });

  test("everything that is wider is named at once, below the path that was asked with", () => {
    const asked = { ...defaultEgress, ports: [{ protocol: "TCP", first: 22, last: 22 } as const] };
    const found = refusal(
      tenantOf({ egress: listed({}), limits: { connections: 5 } }),
      {
        egress: asked,
        networkLimits: { connections: 6, packetsPerSecond: 10 },
      },
      "",
    );
    expect(found?.fields).toEqual([
      "egress.ports[0]: TCP 22 is not in the tenant's TCP 443",
      "egress.scope: every public address is more than what the tenant's policy lists",
      "network_limits.connections: 6 is more than the tenant's 5",
    ]);
  });

  test("what is allowed is had: nothing of it is cut off but what the tenant denies", () => {
    /** Mostly within the first, so that not all are refused. */
    const pair = fc.tuple(policy, policy, fc.boolean()).map(([own, other, isListed]) => {
      const scope = isListed ? "LISTED" : own.scope;
      const allowCidrs = [...own.allowCidrs, ...other.allowCidrs.slice(1)];
      const asked = { ...own, scope, ports: own.ports.slice(0, 2), allowCidrs, denyCidrs: other.denyCidrs };
      return [own, asked] as const;
    });
    let had = 0;
    fc.assert(
      fc.property(pair, attempt, ([own, asked], tried) => {
        if (refusal(tenantOf({ egress: own }), { egress: asked }) !== undefined) return;
        const isDenied = !allows({ ...asked, denyCidrs: own.denyCidrs }, tried);
        if (!allows(asked, tried) || isDenied) return;
        had += 1;
        expect(allows(intersectEgress(own, asked), tried)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
    expect(had).toBeGreaterThan(20);
  });
});

describe("behind a proxy", () => {
  test("a policy of its own is refused, and the hint says why", () => {
    const found = refusal(tenantOf({ proxy: "web" }), { egress: defaultEgress });
    expect(found).toMatchObject({ reason: "NETWORK_NOT_ALLOWED" });
    expect(found?.hint).toContain('proxy "web" and nothing else');
    expect(refusal(tenantOf({ proxy: "web" }), {})).toBeUndefined();
  });

  test("that the host does not have, there is no egress", () => {
    const found = refusal(tenantOf({ proxy: "gone" }), {});
    expect(found).toMatchObject({ reason: "NETWORK_UNAVAILABLE" });
    expect(found?.hint).toContain("[proxies.gone]");
    expect(refusal(tenantOf({ proxy: "gone" }), { networkMode: "NONE" })).toBeUndefined();
  });
});

test("a mode is one of the tenant's, and NONE always is", () => {
  const asker = { tenant: "acme", network: tenantOf({ modes: ["EGRESS"] }) };
  expect(() => checkMode("NONE", asker)).not.toThrow();
  expect(() => checkMode("EGRESS", asker)).not.toThrow();
  expect(() => checkMode("INTERNAL", asker)).toThrow(
    expect.objectContaining({
      reason: "NETWORK_NOT_ALLOWED",
      message: expect.stringContaining(
        "spec.network_mode: INTERNAL is none of the tenant's modes, NONE, EGRESS",
      ),
    }),
  );
});
