import type { NetworkInspectInfo } from "dockerode";
import { describe, expect, test } from "vitest";
import {
  checkContainerNetwork,
  checkNetworkPlan,
  type NetworkPlan,
} from "../../../src/engine/network-plan.ts";
import { conflictOf, differenceOf, networkCreateOptions } from "../../../src/engine/networks.ts";

const plan: NetworkPlan = {
  name: "sandboxd-host_net_acme",
  bridge: "sbx0123abcd",
  subnet: "10.100.0.0/26",
  gateway: "10.100.0.1",
  labels: { "sandboxd.host": "host" },
  labelPrefix: "sandboxd.",
};

/** What Docker Engine 20.10.24 showed of it. */
const shown: NetworkInspectInfo = {
  Name: plan.name,
  Id: "a0a47e0d0fc3f46b4994c521d6655df88332e0ff82c294c6ca7b79556b094871",
  Created: "2026-11-27T02:49:20.285413143Z",
  Scope: "local",
  Driver: "bridge",
  EnableIPv6: false,
  IPAM: {
    Driver: "default",
    Options: null as never,
    Config: [{ Subnet: plan.subnet, Gateway: plan.gateway }],
  },
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigFrom: { Network: "" },
  ConfigOnly: false,
  Containers: {},
  Options: {
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "false",
    "com.docker.network.bridge.gateway_mode_ipv4": "nat",
    "com.docker.network.bridge.name": plan.bridge,
  },
  Labels: { "sandboxd.host": "host" },
};

const withOption = (name: string, value: string) => ({ Options: { ...shown.Options, [name]: value } });

describe("a network of the engine", () => {
  test("is neither masqueraded, nor IPv6, nor anybody else's to attach to", () => {
    expect(networkCreateOptions(plan)).toMatchObject({
      Driver: "bridge",
      CheckDuplicate: true,
      EnableIPv6: false,
      Attachable: false,
      Options: { "com.docker.network.bridge.enable_ip_masquerade": "false" },
    });
  });

  test("is as planned as a real engine shows it, and a later one", () => {
    expect(differenceOf(plan, shown)).toBeUndefined();
    const IPAM = {
      Driver: "default",
      Options: {},
      Config: [{ Gateway: plan.gateway, IPRange: "", Subnet: plan.subnet }],
    };
    expect(differenceOf(plan, { ...shown, EnableIPv4: true, IPAM } as never)).toBeUndefined();
  });

  test("may have the packets' size from the engine's configuration", () => {
    const mtu = withOption("com.docker.network.driver.mtu", "1400");
    expect(differenceOf(plan, { ...shown, ...mtu })).toBeUndefined();
  });

  test.each<readonly [string, Partial<NetworkInspectInfo> & { readonly EnableIPv4?: boolean }]>([
    ["driver", { Driver: "macvlan" }],
    ["scope", { Scope: "swarm" }],
    ["internal", { Internal: true }],
    ["attachable", { Attachable: true }],
    ["ingress", { Ingress: true }],
    ["configuration alone", { ConfigOnly: true }],
    ["configured from", { ConfigFrom: { Network: "other" } }],
    ["IPv6", { EnableIPv6: true }],
    ["IPv4", { EnableIPv4: false }],
    ["address driver", { IPAM: { ...shown.IPAM, Driver: "dhcp" } as never }],
    [
      "addresses",
      { IPAM: { Driver: "default", Config: [{ Subnet: "10.100.0.0/25", Gateway: plan.gateway }] } },
    ],
    ["addresses", { IPAM: { Driver: "default", Config: [{ Subnet: plan.subnet, Gateway: "10.100.0.2" }] } }],
    [
      "addresses",
      {
        IPAM: {
          Driver: "default",
          Config: [{ Subnet: plan.subnet, Gateway: plan.gateway, IPRange: "10.100.0.0/28" }],
        },
      },
    ],
    ["addresses", { IPAM: { Driver: "default", Config: [] } }],
    ["options", withOption("com.docker.network.bridge.name", "docker9")],
    ["options", withOption("com.docker.network.bridge.enable_ip_masquerade", "true")],
    ["options", withOption("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected")],
    ["options", withOption("com.docker.network.bridge.inhibit_ipv4", "true")],
    ["options", withOption("com.docker.network.bridge.trusted_host_interfaces", "eth0")],
    ["options", { Options: {} }],
    ["labels", { Labels: { "sandboxd.host": "other" } }],
    ["labels", { Labels: {} }],
  ])("is another where its %s is otherwise: %j", (field, change) => {
    expect(differenceOf(plan, { ...shown, ...change })).toMatch(new RegExp(`^${field}: wanted .*, got `));
  });

  test.each([
    ["name", { name: "bridge" }],
    ["name", { name: "sandboxd/../containers" }],
    ["bridge", { bridge: "sbx0123456789abc" }],
    ["bridge", { bridge: "sbx*" }],
    ["subnet", { subnet: "10.100.0.1/26" }],
    ["subnet", { subnet: "10.100.0.0/30" }],
    ["subnet", { subnet: "fd00::/64" }],
    ["gateway", { gateway: "10.100.0.0" }],
    ["gateway", { gateway: "10.100.0.63" }],
    ["gateway", { gateway: "10.100.0.64" }],
  ])("is not asked for with a %s out of its bounds: %j", (field, change) => {
    expect(() => checkNetworkPlan(plan)).not.toThrow();
    expect(() => checkNetworkPlan({ ...plan, ...change })).toThrow(new RegExp(`^${field}: `));
  });
});

describe("what the engine says of a network that it cannot make", () => {
  const answer = (statusCode: number, message: string) => Object.assign(new Error(message), { statusCode });

  test.each([
    [403, "Pool overlaps with other one on this address space", "subnet taken"],
    [403, "invalid pool request: Pool overlaps with other one on this address space", "subnet taken"],
    [
      403,
      "cannot create network a (sbx1): conflicts with network b (sbx2): networks have overlapping IPv4",
      "subnet taken",
    ],
    [
      403,
      "cannot create network a (sbx1): conflicts with network b (sbx1): networks have same bridge name",
      "bridge taken",
    ],
    [500, "existing interface sbx1 is not a bridge", "bridge taken"],
    [409, "network with name a already exists", "name taken"],
    [500, "iptables failed: no chain by that name", undefined],
  ])("%i %s: %s", (status, message, conflict) => {
    expect(conflictOf(answer(status, message))).toBe(conflict);
  });

  test("is no conflict where it said nothing", () => {
    expect(conflictOf(new Error("overlap"))).toBeUndefined();
  });
});

describe("how a container is connected", () => {
  const network = {
    mode: "bridge",
    network: plan.name,
    address: "10.100.0.2",
    mac: "06:73:0a:64:00:02",
    dns: plan.gateway,
  } as const;

  test.each([
    ["network", { network: "host" }],
    ["address", { address: "10.100.0" }],
    ["address", { address: "fd00::1" }],
    ["dns", { dns: "" }],
    ["mac", { mac: "00:73:0a:64:00:02" }],
    ["mac", { mac: "07:73:0a:64:00:02" }],
    ["mac", { mac: "06:73:0A:64:00:02" }],
  ])("is not asked for with a %s out of its bounds: %j", (field, change) => {
    expect(() => checkContainerNetwork(network)).not.toThrow();
    expect(() => checkContainerNetwork({ ...network, ...change })).toThrow(new RegExp(`^network.${field}: `));
  });
});
