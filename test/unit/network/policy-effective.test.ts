import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { effectiveNetwork, peersReach } from "../../../src/network/effective.ts";
import {
  defaultEgress,
  type EgressPolicy,
  type NetworkMode,
  noNetwork,
  nothing,
  type SandboxNetworkSpec,
  type TenantNetwork,
} from "../../../src/network/policy.ts";
import { proxyEnvironment } from "../../../src/network/proxy.ts";
import { allows, attempt, policy } from "./policies.ts";

const proxy = { name: "web", address: "10.0.0.5", port: 3128, noProxy: [".example.com", "10.0.0.0/8"] };

function tenantOf(change: Partial<TenantNetwork> = {}): TenantNetwork {
  return { ...noNetwork, modes: ["NONE", "INTERNAL", "EGRESS"], ...change };
}

function effectiveOf(tenant: TenantNetwork, spec: Partial<SandboxNetworkSpec> = {}, proxies = {}) {
  return effectiveNetwork(tenant, { networkMode: "EGRESS", ...spec }, proxies);
}

const listed = (change: Partial<EgressPolicy>): EgressPolicy => ({
  ...defaultEgress,
  scope: "LISTED",
  ...change,
});

describe("a sandbox", () => {
  test("that asks for nothing has what its tenant has", () => {
    const limits = { connections: 100 };
    expect(effectiveOf(tenantOf({ limits }))).toEqual({ mode: "EGRESS", egress: defaultEgress, limits });
  });

  test("never has more than its tenant, nor more than it asked for", () => {
    fc.assert(
      fc.property(policy, policy, attempt, (own, asked, tried) => {
        const { egress } = effectiveOf(tenantOf({ egress: own }), { egress: asked });
        if (egress === undefined) throw new Error("none");
        if (allows(egress, tried)) expect([allows(own, tried), allows(asked, tried)]).toEqual([true, true]);
      }),
      { numRuns: 1_000 },
    );
  });

  test("has the lower of each bound", () => {
    const tenant = tenantOf({ limits: { connections: 100, packetsPerSecond: 1_000 } });
    const asked = { connections: 10, transmitBytesPerSecond: 8_192 };
    expect(effectiveOf(tenant, { networkLimits: asked }).limits).toEqual({
      connections: 10,
      packetsPerSecond: 1_000,
      transmitBytesPerSecond: 8_192,
    });
  });

  test.each<[NetworkMode, readonly NetworkMode[], NetworkMode]>([
    ["EGRESS", ["NONE", "INTERNAL", "EGRESS"], "EGRESS"],
    ["EGRESS", ["NONE", "INTERNAL"], "INTERNAL"],
    ["EGRESS", ["NONE"], "NONE"],
    ["INTERNAL", ["NONE", "INTERNAL"], "INTERNAL"],
    ["INTERNAL", ["NONE", "EGRESS"], "INTERNAL"],
    ["INTERNAL", ["NONE"], "NONE"],
    ["NONE", ["NONE", "EGRESS"], "NONE"],
  ])("of mode %s whose tenant may now have %j is left with %s", (networkMode, modes, left) => {
    const { mode, egress } = effectiveOf(tenantOf({ modes }), { networkMode });
    expect(mode).toBe(left);
    expect(egress !== undefined).toBe(left === "EGRESS");
  });

  test("has no private address that the host no longer allows", () => {
    const tenant = tenantOf({ egress: listed({ allowCidrs: ["10.0.0.0/8"] }) });
    const spec = { networkMode: "EGRESS" } as const;
    expect(effectiveNetwork(tenant, spec, {}, ["10.0.0.0/8"]).egress?.allowCidrs).toEqual(["10.0.0.0/8"]);
    expect(effectiveNetwork(tenant, spec, {}, []).egress?.allowCidrs).toEqual([]);
  });
});

describe("behind a proxy", () => {
  const tenant = tenantOf({ proxy: "web" });
  const proxies = { web: proxy };
  const through = listed({
    ports: [{ protocol: "TCP", first: 3128, last: 3128 }],
    allowCidrs: ["10.0.0.5/32"],
  });

  test("that is all there is, whatever the tenant's policy would allow", () => {
    expect(effectiveOf(tenant, {}, proxies)).toEqual({
      mode: "EGRESS",
      egress: { ...through, proxy: { address: "10.0.0.5", port: 3128 } },
      limits: {},
      proxy,
    });
  });

  test("it is there although its address is not public and the host allows no such policy", () => {
    expect(effectiveNetwork(tenant, { networkMode: "EGRESS" }, proxies, []).egress?.allowCidrs).toEqual([
      "10.0.0.5/32",
    ]);
  });

  test.each([
    ["every public address", defaultEgress],
    ["another port of it", listed({ allowCidrs: ["10.0.0.5/32"] })],
    ["what is not the proxy", { ...through, allowCidrs: ["10.0.0.6/32"] }],
    ["all but the proxy", { ...through, allowCidrs: ["10.0.0.0/8"], denyCidrs: ["10.0.0.5/32"] }],
  ])("a sandbox that asked for %s reaches nothing", (_, egress) => {
    expect(effectiveOf(tenant, { egress }, proxies).egress).toEqual(nothing);
  });

  test("a sandbox that asked for a policy with the proxy in it reaches that", () => {
    const egress = listed({
      ports: [{ protocol: "TCP", first: 1, last: 9_999 }],
      allowCidrs: ["10.0.0.0/8"],
    });
    expect(effectiveOf(tenant, { egress }, proxies).egress).toMatchObject({
      ...through,
      proxy: { port: 3128 },
    });
  });

  test("that moves, is followed", () => {
    const moved = { web: { ...proxy, address: "10.0.0.6" } };
    expect(effectiveOf(tenant, {}, proxies).egress?.proxy?.address).toBe("10.0.0.5");
    expect(effectiveOf(tenant, {}, moved).egress).toMatchObject({
      allowCidrs: ["10.0.0.6/32"],
      proxy: { address: "10.0.0.6", port: 3128 },
    });
  });

  test("that the host no longer has, nothing is reached", () => {
    const { egress, proxy: none } = effectiveOf(tenant);
    expect(egress).toEqual(nothing);
    expect(none).toBeUndefined();
    expect(effectiveOf(tenantOf({ proxy: "toString" })).egress).toEqual(nothing);
  });
});

test("peers reach each other only where that is allowed, and there is a network to do it on", () => {
  expect(peersReach(tenantOf({ allowPeers: true }))).toBe(true);
  expect(peersReach(tenantOf())).toBe(false);
  expect(peersReach(tenantOf({ allowPeers: true, modes: ["NONE"] }))).toBe(false);
});

test("programs are told of a proxy in capitals and not, and to leave it out for the sandbox itself", () => {
  const url = "http://10.0.0.5:3128";
  const except = "localhost,127.0.0.1,::1,.example.com,10.0.0.0/8";
  expect(proxyEnvironment(proxy)).toEqual({
    HTTP_PROXY: url,
    HTTPS_PROXY: url,
    NO_PROXY: except,
    http_proxy: url,
    https_proxy: url,
    no_proxy: except,
  });
});
