import type { ContainerInspectInfo } from "dockerode";
import { describe, expect, test } from "vitest";
import { containerCreateOptions } from "../../../src/engine/host-config.ts";
import { startFailure } from "../../../src/engine/start-failure.ts";
import { findMismatches } from "../../../src/engine/verify.ts";
import { inspected as inspectedWithout, plan as without } from "./plan.ts";

const name = "sandboxd-host_net_acme";
const network = {
  mode: "bridge",
  network: name,
  address: "10.100.0.2",
  mac: "06:73:0a:64:00:02",
  dns: "10.100.0.1",
} as const;
const plan = { ...without, network };

type Endpoint = Record<string, unknown>;

/** What Docker Engine 20.10.24 showed of it before its start. */
const endpoint: Endpoint = {
  IPAMConfig: { IPv4Address: network.address },
  Links: null,
  Aliases: null,
  NetworkID: "",
  EndpointID: "",
  Gateway: "",
  IPAddress: "",
  IPPrefixLen: 0,
  IPv6Gateway: "",
  GlobalIPv6Address: "",
  GlobalIPv6PrefixLen: 0,
  MacAddress: network.mac,
  DriverOpts: null,
};

function inspected(
  change: Endpoint = {},
  config: object = { MacAddress: network.mac },
): ContainerInspectInfo {
  const info = inspectedWithout();
  Object.assign(info.HostConfig, {
    NetworkMode: name,
    Dns: [network.dns],
    DnsSearch: ["."],
    DnsOptions: ["timeout:2", "attempts:2"],
  });
  Object.assign(info.Config, config);
  info.NetworkSettings.Networks = { [name]: { ...endpoint, ...change } as never };
  return info;
}

const fieldsOf = (info: ContainerInspectInfo) => findMismatches(plan, info).map(({ field }) => field);

describe("a container on a network", () => {
  test("is asked for with its address, its MAC and one resolver, and nothing of the host's", () => {
    expect(containerCreateOptions(plan)).toMatchObject({
      MacAddress: network.mac,
      NetworkingConfig: {
        EndpointsConfig: {
          [name]: { IPAMConfig: { IPv4Address: network.address }, MacAddress: network.mac },
        },
      },
      HostConfig: { NetworkMode: name, Dns: [network.dns], DnsSearch: ["."], PublishAllPorts: false },
    });
    expect(containerCreateOptions(plan).HostConfig).not.toHaveProperty("PortBindings");
  });

  test("differs in these alone from one that has none", () => {
    const { MacAddress: _, NetworkingConfig: __, ...rest } = containerCreateOptions(plan);
    const { Dns: ___, DnsSearch: ____, DnsOptions: _____, ...host } = rest.HostConfig;
    expect({ ...rest, HostConfig: { ...host, NetworkMode: "none" } }).toEqual(
      containerCreateOptions(without),
    );
    expect(Object.keys(containerCreateOptions(without).HostConfig)).not.toContain("Dns");
  });

  test("is as planned as a real engine shows it, also once it ran", () => {
    expect(fieldsOf(inspected())).toEqual([]);
    const id = inspected().Id;
    expect(fieldsOf(inspected({ NetworkID: id, MacAddress: "", Aliases: [id.slice(0, 12)] }))).toEqual([]);
  });

  test("is as planned where a later engine tells the MAC of the endpoint alone", () => {
    expect(fieldsOf(inspected({}, {}))).toEqual([]);
  });

  test.each<readonly [string, Endpoint]>([
    ["IPAMConfig", { IPAMConfig: null }],
    ["IPAMConfig", { IPAMConfig: { IPv4Address: "10.100.0.3" } }],
    ["IPAMConfig", { IPAMConfig: { IPv4Address: network.address, IPv6Address: "fd00::2" } }],
    ["IPAMConfig", { IPAMConfig: { IPv4Address: network.address, LinkLocalIPs: ["169.254.1.1"] } }],
    ["MacAddress", { MacAddress: "02:42:0a:64:00:02" }],
    ["Aliases", { Aliases: ["database"] }],
    ["Links", { Links: ["other:database"] }],
    [
      "DriverOpts",
      { DriverOpts: { "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.forwarding=1" } },
    ],
  ])("is another where the engine says of its %s: %j", (field, change) => {
    expect(fieldsOf(inspected(change))).toEqual([`NetworkSettings.Networks.${name}.${field}`]);
  });

  test("is another with another MAC, another resolver, or another network besides", () => {
    expect(fieldsOf(inspected({}, { MacAddress: "02:42:0a:64:00:02" }))).toEqual(["Config.MacAddress"]);
    const asking = inspected();
    asking.HostConfig.Dns = ["9.9.9.9"];
    expect(fieldsOf(asking)).toEqual(["HostConfig.Dns"]);
    const twice = inspected();
    Object.assign(twice.NetworkSettings.Networks, { bridge: {} });
    expect(fieldsOf(twice)).toEqual(["NetworkSettings.Networks"]);
    const published = inspected();
    published.HostConfig.PortBindings = { "22/tcp": [{ HostPort: "22" }] };
    expect(fieldsOf(published)).toEqual(["HostConfig.PortBindings"]);
    expect(fieldsOf(inspectedWithout())).toContain("NetworkSettings.Networks");
  });
});

describe("a start that fails for a network", () => {
  const answer = (statusCode: number, message: string) => Object.assign(new Error(message), { statusCode });

  test.each([
    [403, "Address already in use"],
    [403, "failed to set up container networking: Address already in use"],
    [404, "network sandboxd-host_net_acme not found"],
    [500, "Invalid address 10.100.7.3: It does not belong to any of this network's subnets"],
  ])("%i %s", (status, message) => {
    expect(startFailure(answer(status, message))).toMatchObject({
      reason: "NETWORK_UNAVAILABLE",
      message: expect.stringContaining(message),
    });
  });

  test.each([
    [404, "No such container: 0123"],
    [500, "listen unix /run/containerd/s/1: bind: address already in use"],
  ])("is told from others: %i %s", (status, message) => {
    expect(startFailure(answer(status, message)).reason).toBe("ENGINE_FAILED");
  });
});
