import { describe, expect, test } from "vitest";
import {
  egressOfKeys,
  hostRulesOf,
  limitsOfKeys,
  proxiesOf,
  resolversOf,
  tenantNetworkOf,
} from "../../../src/config/network-values.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import { configOf, errorsOf } from "./fixture.ts";

describe("keys of networks", () => {
  test("left out, a tenant that was never put has no network, and templates say nothing of it", () => {
    const { tenants, templates } = configOf("[templates.a]");
    expect(tenantNetworkOf(tenants.default.network)).toEqual(noNetwork);
    expect(templates["a"]).toMatchObject({ networkMode: "none" });
    const template = templates["a"];
    expect(template && [egressOfKeys(template.egress), limitsOfKeys(template.networkLimits)]).toEqual([
      undefined,
      undefined,
    ]);
  });

  test("become the values that the rest of the program knows", () => {
    const config = configOf(`
      [tenants.default.network]
      modes = ["egress", "internal"]
      allow_peers = true
      forward_ports = ["3000", "8000-8100"]
      proxy = "web"
      [tenants.default.network.egress]
      scope = "listed"
      ports = ["443/tcp", "53/udp", "80"]
      allow_cidrs = ["10.50.0.0/16"]
      deny_cidrs = ["10.50.1.0/24"]
      allow_domains = ["*.Example.com."]
      check_sni = true
      [tenants.default.network.limits]
      transmit_bytes_per_second = "1MiB"
      connections = 50
      [proxies.web]
      address = "10.0.0.5:3128"
      no_proxy = [".corp.example"]
      [network]
      allow_private = ["10.50.0.0/16"]
      resolvers = ["10.0.0.53", "10.0.0.54:5353"]
    `);
    expect(tenantNetworkOf(config.tenants.default.network)).toEqual({
      modes: ["NONE", "INTERNAL", "EGRESS"],
      allowPeers: true,
      forwardPorts: [
        { protocol: "TCP", first: 3000, last: 3000 },
        { protocol: "TCP", first: 8000, last: 8100 },
      ],
      proxy: "web",
      egress: {
        scope: "LISTED",
        ports: [
          { protocol: "TCP", first: 443, last: 443 },
          { protocol: "UDP", first: 53, last: 53 },
          { protocol: "TCP", first: 80, last: 80 },
        ],
        allowCidrs: ["10.50.0.0/16"],
        denyCidrs: ["10.50.1.0/24"],
        allowDomains: ["*.example.com"],
        checkSni: true,
      },
      limits: { transmitBytesPerSecond: 1_048_576, connections: 50 },
    });
    expect(proxiesOf(config)).toEqual({
      web: { name: "web", address: "10.0.0.5", port: 3128, noProxy: [".corp.example"] },
    });
    expect(resolversOf(config)).toEqual([
      { address: "10.0.0.53", port: 53 },
      { address: "10.0.0.54", port: 5353 },
    ]);
    expect(hostRulesOf(config)).toEqual({
      allowPrivate: ["10.50.0.0/16"],
      pools: ["10.213.0.0/16"],
      proxies: ["web"],
    });
  });

  test("of a template that says one thing of egress has defaults for the rest", () => {
    const { templates } = configOf('[templates.a]\nnetwork_mode = "egress"\negress.ports = ["22/tcp"]');
    expect(templates["a"] && egressOfKeys(templates["a"].egress)).toEqual({
      scope: "PUBLIC",
      ports: [{ protocol: "TCP", first: 22, last: 22 }],
      allowCidrs: [],
      denyCidrs: [],
      allowDomains: [],
    });
  });
});

describe("what is refused", () => {
  test.each([
    ["a pool that is no block", 'network.pools = ["10.0.0/24"]', "is not a block of IPv4 addresses"],
    ["a pool of IPv6", 'network.pools = ["fd00::/48"]', "is IPv6, which sandboxes do not have"],
    ["a pool with bits behind its prefix", 'network.pools = ["10.0.0.1/16"]', "Hint: write 10.0.0.0/16"],
    ["a pool that is public", 'network.pools = ["8.0.0.0/16"]', "8.0.0.0/16 is not private, shared (CGNAT)"],
    ["a pool of link-local addresses", 'network.pools = ["169.254.0.0/16"]', "is not private"],
    ["no pool at all", "network.pools = []", "names no block"],
    [
      "a pool without a subnet",
      'network.pools = ["10.0.0.0/26"]',
      "is smaller than one subnet, network.subnet_prefix 25",
    ],
    [
      "pools that overlap",
      'network.pools = ["10.0.0.0/16", "10.0.8.0/24"]',
      "10.0.8.0/24 overlaps 10.0.0.0/16",
    ],
    ["subnets of four addresses", "network.subnet_prefix = 30", "is too large"],
    ["subnets of a whole pool", "network.subnet_prefix = 15", "is too small"],
    [
      "metadata services",
      'network.allow_private = ["169.254.0.0/16"]',
      "no sandbox may reach: 169.254.0.0/16",
    ],
    ["the host's loopback", 'network.allow_private = ["127.0.0.53/32"]', "127.0.0.0/8, loopback"],
    ["everything", 'network.allow_private = ["0.0.0.0/0"]', "no sandbox may reach"],
    [
      "addresses of sandboxes",
      'network.allow_private = ["10.0.0.0/8"]',
      "overlaps network.pools, 10.213.0.0/16",
    ],
    [
      "a public block as private",
      'network.allow_private = ["8.8.8.0/24"]',
      "are public, which need no leave",
    ],
    ["a resolver by name", 'network.resolvers = ["dns.example.com"]', "is not an address of IPv4"],
    ["a resolver's port 0", 'network.resolvers = ["10.0.0.1:0"]', "is not an address of IPv4"],
    ["a proxy without an address", "[proxies.web]", "proxies.web.address: is missing"],
    ["a proxy by name", 'proxies.web.address = "proxy.example.com:3128"', 'is not "address:port"'],
    ["a proxy without a port", 'proxies.web.address = "10.0.0.5"', 'is not "address:port"'],
    [
      "a proxy on loopback",
      'proxies.web.address = "127.0.0.1:3128"',
      "is where no sandbox gets to: loopback",
    ],
    ["a proxy among sandboxes", 'proxies.web.address = "10.213.0.5:3128"', "is in network.pools"],
    [
      "an exception with a comma",
      'proxies.web = { address = "10.0.0.5:1", no_proxy = ["a,b"] }',
      "is not a name",
    ],
    ["a mode that there is none of", 'tenants.default.network.modes = ["host"]', '"host", which is unknown'],
    ["ports of a protocol without", 'tenants.default.network.egress.ports = ["1/icmp"]', "which is not"],
    [
      "forwarded ports of UDP",
      'tenants.default.network.forward_ports = ["53/udp"]',
      "a range of ports of TCP",
    ],
    [
      "a proxy that there is none of",
      'tenants.default.network.proxy = "web"',
      'this host has no proxy "web"; it has: none',
    ],
    [
      "a tenant's private addresses that the host does not allow",
      'tenants.default.network.egress.allow_cidrs = ["10.1.0.0/16"]',
      'tenants.default.network.egress.allow_cidrs: "10.1.0.0/16" has addresses that are not public',
    ],
    [
      "names beside every public address",
      'tenants.default.network.egress.allow_domains = ["example.com"]',
      'set scope to "listed"',
    ],
    ["a name that is none", 'tenants.default.network.egress.allow_domains = ["bücher.example"]', "xn--"],
    [
      "a template's policy without egress",
      '[templates.a.egress]\nscope = "listed"',
      'templates.a.egress.scope: means nothing with network_mode "none"',
    ],
    [
      "a template's bounds without a network",
      "[templates.a.network_limits]\nnew_connections_per_second = 1",
      'templates.a.network_limits.new_connections_per_second: means nothing with network_mode "none"',
    ],
    [
      "a template's metadata service",
      '[templates.a]\nnetwork_mode = "egress"\negress.allow_cidrs = ["169.254.169.254/32"]',
      "templates.a.egress.allow_cidrs:",
    ],
  ])("%s", (_, toml, part) => {
    const errors = errorsOf(toml);
    expect(errors.join("\n")).toContain(part);
    expect(errors).toHaveLength(1);
  });
});

test.each([
  'network.pools = ["172.20.0.0/14", "100.64.0.0/10", "198.18.0.0/15", "192.168.4.0/25"]',
  'network = { pools = ["10.0.0.0/29"], subnet_prefix = 29 }',
  'network.allow_private = ["10.0.0.0/9", "203.0.113.0/24"]',
  '[templates.a]\nnetwork_mode = "internal"\nnetwork_limits.connections = 1',
])("allowed: %s", (toml) => {
  expect(errorsOf(toml)).toEqual([]);
});
