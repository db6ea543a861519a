import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { EventType } from "../../../gen/sandboxd/v1/event_pb.ts";
import { SandboxNetworkSchema } from "../../../gen/sandboxd/v1/network_pb.ts";
import { NetworkMode, SandboxSpecSchema } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { UpdateSandboxRequestSchema } from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { TenantNetworkSchema } from "../../../gen/sandboxd/v1/tenant_pb.ts";
import { eventOf } from "../../../src/api/event-codec.ts";
import { type NetworkView, tenantNetworkMessageOf, tenantNetworkOf } from "../../../src/api/network-codec.ts";
import { sandboxOf, specRequestOf } from "../../../src/api/sandbox-codec.ts";
import { policyOf, policyOfTenant } from "../../../src/api/tenant-codec.ts";
import { changeOf } from "../../../src/api/update-codec.ts";
import { SandboxdError } from "../../../src/errors.ts";
import { defaultEgress, noNetwork, type TenantNetwork } from "../../../src/network/policy.ts";
import type { SandboxRecord, Spec } from "../../../src/sandbox/record.ts";
import { hashOfRequest } from "../../../src/sandbox/spec.ts";
import { completedTenant } from "../../../src/tenant/record.ts";
import { recordOf } from "../sandbox/fixture.ts";

const clock = { nowMs: () => 0, wallMs: (ms: number) => ms } as Parameters<typeof sandboxOf>[1];

const specOf = (json: object) => specRequestOf(fromJson(SandboxSpecSchema, json as never));

describe("a spec", () => {
  test("that says nothing of networks asks for nothing of them", () => {
    const request = specOf({ image: "busybox" });
    expect(Object.keys(request)).not.toContain("networkMode");
    expect(Object.keys(request)).not.toContain("egress");
    expect(Object.keys(request)).not.toContain("networkLimits");
    expect(hashOfRequest("acme", specOf({ image: "busybox", networkMode: "NETWORK_MODE_NONE" }))).toBe(
      hashOfRequest("acme", request),
    );
  });

  test("that names one thing of a policy gets the contract's defaults for the rest", () => {
    expect(specOf({ networkMode: "NETWORK_MODE_EGRESS", egress: {} })).toMatchObject({
      networkMode: "EGRESS",
      egress: defaultEgress,
    });
    expect(specOf({ egress: { scope: "EGRESS_SCOPE_LISTED", ports: [{ first: 22 }] } }).egress).toEqual({
      ...defaultEgress,
      scope: "LISTED",
      ports: [{ protocol: "TCP", first: 22, last: 22 }],
    });
  });

  test("is taken over with addresses and names as they are kept, and what is neither as it came", () => {
    const egress = {
      scope: "EGRESS_SCOPE_LISTED",
      ports: [{ protocol: "NETWORK_PROTOCOL_UDP", first: 50, last: 60 }],
      allowCidrs: ["198.41.0.4", "198.41.0.0/24", "nonsense", "::/0"],
      denyCidrs: ["10.0.0.1/8"],
      allowDomains: ["WWW.Example.com.", "*.example.com"],
    };
    expect(specOf({ egress, networkLimits: { connections: "5", packetsPerSecond: "10" } })).toMatchObject({
      egress: {
        scope: "LISTED",
        ports: [{ protocol: "UDP", first: 50, last: 60 }],
        allowCidrs: ["198.41.0.4/32", "198.41.0.0/24", "nonsense", "::/0"],
        denyCidrs: ["10.0.0.1/8"],
        allowDomains: ["www.example.com", "*.example.com"],
      },
      networkLimits: { connections: 5, packetsPerSecond: 10 },
    });
  });

  test("has server names checked if it says so, and otherwise means what it meant before there was that", () => {
    const listed = { scope: "EGRESS_SCOPE_LISTED", allowDomains: ["example.com"] };
    expect(specOf({ egress: { ...listed, checkSni: true } }).egress).toMatchObject({ checkSni: true });
    const [absent, no] = [specOf({ egress: listed }), specOf({ egress: { ...listed, checkSni: false } })];
    expect(absent.egress).not.toHaveProperty("checkSni");
    expect(hashOfRequest("acme", no)).toBe(hashOfRequest("acme", absent));
  });

  test("is told as it was asked", () => {
    const asked = {
      networkMode: "EGRESS",
      egress: {
        scope: "LISTED",
        ports: [{ protocol: "UDP", first: 50, last: 60 }],
        allowCidrs: ["198.41.0.0/24"],
        denyCidrs: ["198.41.0.4/32"],
        allowDomains: ["*.example.com"],
        checkSni: true,
      },
      networkLimits: { transmitBytesPerSecond: 10_000_000_000, connections: 5 },
    } as const satisfies Partial<Spec>;
    const record = recordOf();
    const { spec } = sandboxOf({ ...record, spec: { ...record.spec, ...asked } }, clock);
    expect(specRequestOf(spec)).toMatchObject(asked);
    expect(sandboxOf(record, clock).spec?.networkMode).toBe(NetworkMode.NONE);
  });
});

describe("a sandbox's status", () => {
  const place = {
    network: "net",
    bridge: "sbx01234567",
    subnet: "10.213.0.0/25",
    gateway: "10.213.0.1",
    address: "10.213.0.2",
    mac: "06:73:0a:d5:00:02",
  };
  const view: NetworkView = {
    effective: { mode: "EGRESS", egress: defaultEgress, limits: {} },
    enforced: true,
    denials: {
      policy: 1,
      host: 2,
      peer: 3,
      spoofed: 4,
      connections: 5,
      packets: 6,
      queries: 7,
      queriesRefused: 8,
      sni: 9,
    },
  };
  const networkOf = (record: SandboxRecord, seen?: NetworkView) => {
    const { status } = sandboxOf(record, clock, seen);
    return status?.network && toJson(SandboxNetworkSchema, status.network);
  };

  test("tells its place, what it may reach and what it was refused", () => {
    expect(networkOf(recordOf({ place }), view)).toEqual({
      bridge: "sbx01234567",
      address: "10.213.0.2",
      gateway: "10.213.0.1",
      enforced: true,
      egress: {
        scope: "EGRESS_SCOPE_PUBLIC",
        ports: [{ protocol: "NETWORK_PROTOCOL_TCP", first: 443, last: 443 }],
      },
      denials: {
        policy: "1",
        host: "2",
        peer: "3",
        spoofed: "4",
        connections: "5",
        packets: "6",
        queries: "7",
        queriesRefused: "8",
        sni: "9",
      },
    });
  });

  test("of one without a way out has no policy", () => {
    const effective = { mode: "INTERNAL", limits: {} } as const;
    expect(networkOf(recordOf({ place }), { ...view, effective })).not.toHaveProperty("egress");
  });

  test("says nothing of a network where there is none, or where nobody looked", () => {
    expect(networkOf(recordOf(), view)).toBeUndefined();
    expect(networkOf(recordOf({ place }))).toBeUndefined();
  });
});

describe("a tenant's policy", () => {
  const network: TenantNetwork = {
    modes: ["NONE", "INTERNAL", "EGRESS"],
    allowPeers: true,
    egress: { ...defaultEgress, denyCidrs: ["198.41.0.0/24"] },
    forwardPorts: [{ protocol: "TCP", first: 3000, last: 3100 }],
    limits: { receiveBytesPerSecond: 8_192, newConnectionsPerSecond: 9 },
    proxy: "web",
  };

  test("that nobody put has no network", () => {
    expect(tenantNetworkOf(undefined)).toEqual(noNetwork);
    expect(tenantNetworkOf(create(TenantNetworkSchema))).toEqual(noNetwork);
    expect(policyOf(undefined, undefined, undefined).network).toEqual(noNetwork);
  });

  test("is told as it was put", () => {
    expect(tenantNetworkOf(create(TenantNetworkSchema, tenantNetworkMessageOf(network)))).toEqual(network);
  });

  test("has modes in one order, each once, and always that of none", () => {
    const modes = [NetworkMode.EGRESS, NetworkMode.INTERNAL];
    expect(tenantNetworkOf(create(TenantNetworkSchema, { modes })).modes).toEqual([
      "NONE",
      "INTERNAL",
      "EGRESS",
    ]);
  });

  test("of an earlier release means that there is none", () => {
    const stored = {
      ...{ name: "acme", uid: 300_000, generation: 2, createdAtMs: 1, updatedAtMs: 2 },
      policy: { quota: { sandboxes: 5 }, limitRange: { min: {}, max: {}, defaults: {}, maxRatio: {} } },
    };
    expect(completedTenant(stored).policy).toEqual({ ...stored.policy, network: noNetwork });
    expect(completedTenant({ ...stored, policy: { ...stored.policy, network } }).policy?.network).toEqual(
      network,
    );
    const { policy: _, ...neverPut } = stored;
    expect(completedTenant(neverPut)).toEqual(neverPut);
    const document = JSON.stringify({ type: "TENANT_CHANGED", tenant: stored });
    const { tenantPolicy } = eventOf({ sequence: 1, timeMs: 0, document }, clock);
    expect(tenantPolicy?.network?.modes).toEqual([NetworkMode.NONE]);
    expect(policyOfTenant(completedTenant(stored)).network).toMatchObject({ modes: [NetworkMode.NONE] });
  });
});

test("an event tells what a sandbox was refused", () => {
  const denials = [
    { reason: "policy", destination: "192.0.2.1:22", protocol: "TCP", count: 3, timeMs: 1_000 },
    { reason: "name", destination: "example.com", count: 1, timeMs: 2_000 },
  ];
  const document = JSON.stringify({ type: "SANDBOX_NETWORK_DENIED", sandbox: recordOf(), denials });
  const event = eventOf({ sequence: 1, timeMs: 0, document }, clock);
  expect(event).toMatchObject({
    type: EventType.SANDBOX_NETWORK_DENIED,
    sandboxId: "one",
    networkDenials: [
      { reason: "policy", destination: "192.0.2.1:22", protocol: 1, count: 3n, time: { seconds: 1n } },
      { reason: "name", destination: "example.com", protocol: 0, count: 1n },
    ],
  });
});

describe("an update", () => {
  const changed = (json: object) =>
    changeOf(fromJson(UpdateSandboxRequestSchema, { sandboxId: "one", ...json } as never));

  test("without a mask changes what is set", () => {
    expect(changed({ egress: {}, networkLimits: { connections: "5" } })).toEqual({
      id: "one",
      resources: {},
      egress: defaultEgress,
      networkLimits: { connections: 5 },
    });
    expect(changed({})).toEqual({ id: "one", resources: {} });
  });

  test("with a mask changes what that names, and to the tenant's what is not set", () => {
    expect(changed({ egress: {}, updateMask: "networkLimits" })).toEqual({
      id: "one",
      resources: {},
      networkLimits: "tenant's",
    });
    expect(changed({ egress: {}, updateMask: "egress" })).toEqual({
      id: "one",
      resources: {},
      egress: defaultEgress,
    });
    expect(changed({ updateMask: "egress,labels" })).toEqual({
      id: "one",
      resources: {},
      labels: {},
      egress: "tenant's",
    });
  });

  test("changes a policy as a whole only", () => {
    const part = () => changed({ egress: {}, updateMask: "egress.ports" });
    expect(part).toThrow(SandboxdError);
    expect(part).toThrow('"egress.ports" cannot change');
  });
});
