import { describe, expect, test } from "vitest";
import { defaultEgress, type EgressPolicy, noNetwork } from "../../../src/network/policy.ts";
import { parsePorts, portsText } from "../../../src/network/ports.ts";
import { egressViolations, tenantNetworkViolations } from "../../../src/network/violations.ts";

const host = { allowPrivate: ["10.50.0.0/16", "192.168.7.0/24"], pools: ["10.213.0.0/16"], proxies: ["web"] };

function found(change: Partial<EgressPolicy>): readonly string[] {
  const policy: EgressPolicy = { ...defaultEgress, scope: "LISTED", ...change };
  return egressViolations(policy, "spec.egress", host).map(
    ({ field, description }) => `${field}: ${description}`,
  );
}

describe("a block that may be allowed", () => {
  test.each(["8.8.8.0/24", "1.1.1.1/32", "10.50.0.0/16", "10.50.3.0/24", "192.168.7.9/32", "192.168.7.0/24"])(
    "%s",
    (cidr) => {
      expect(found({ allowCidrs: [cidr] })).toEqual([]);
    },
  );

  test.each([
    ["10.51.0.0/16", "not public, as 10.51.0.0: this host's [network] allow_private is 10.50.0.0/16"],
    ["10.50.0.0/15", "not public, as 10.51.0.0"],
    ["8.0.0.0/5", "10.213.0.0/16, addresses of sandboxes ([network] pools)"],
    ["203.0.113.7/32", "not public"],
    ["100.64.0.1/32", "not public"],
    ["169.254.169.254/32", "169.254.0.0/16, link-local addresses, metadata services among them"],
    ["127.0.0.1/32", "127.0.0.0/8, loopback"],
    ["0.0.0.0/0", "0.0.0.0/8, the host itself"],
    ["224.0.0.1/32", "224.0.0.0/4, multicast"],
    ["255.255.255.255/32", "240.0.0.0/4, reserved"],
    ["10.213.4.0/24", "10.213.0.0/16, addresses of sandboxes"],
  ])("%s is none", (cidr, part) => {
    const [only, ...more] = found({ allowCidrs: ["8.8.8.0/24", cidr] });
    expect(only).toMatch(/^spec\.egress\.allow_cidrs\[1\]: /);
    expect(only).toContain(part);
    expect(more).toEqual([]);
  });

  test("without any private ones says so", () => {
    const none = egressViolations({ ...defaultEgress, allowCidrs: ["10.0.0.1/32"] }, "egress", {
      ...host,
      allowPrivate: [],
    });
    expect(none[0]?.description).toContain("allow_private is empty");
  });
});

test.each([
  ["fe80::/10", "is IPv6, which is not available"],
  ["2001:db8::1", "is IPv6"],
  ["10.50.0.1/16", "write 10.50.0.0/16"],
  ["8.8.8.8/33", "is no block"],
  ["8.8.8/24", "is no block"],
  ["08.8.8.8", "is no block"],
  ["example.com", "is no block"],
])("%s is no block, in either list", (text, part) => {
  for (const list of ["allow", "deny"] as const) {
    const [only = ""] = found(list === "allow" ? { allowCidrs: [text] } : { denyCidrs: [text] });
    expect(only).toMatch(new RegExp(`^spec\\.egress\\.${list}_cidrs\\[0\\]: "`));
    expect(only).toContain(part);
  }
});

test("anything may be denied", () => {
  expect(found({ denyCidrs: ["0.0.0.0/0", "169.254.169.254/32", "10.213.0.0/16"] })).toEqual([]);
});

test("names belong to lists only", () => {
  expect(found({ allowDomains: ["example.com"] })).toEqual([]);
  expect(found({ scope: "PUBLIC", allowDomains: ["example.com"] })).toEqual([
    expect.stringMatching(/^spec\.egress\.allow_domains: must be empty .*EGRESS_SCOPE_LISTED/),
  ]);
  expect(found({ allowDomains: ["example.com", "bücher.example"] })).toEqual([
    expect.stringMatching(/^spec\.egress\.allow_domains\[1\]: "bücher\.example" .*xn--/),
  ]);
});

test("server names are checked of names that are listed, on the port of TLS", () => {
  const named = { allowDomains: ["example.com"], checkSni: true } as const;
  expect(found(named)).toEqual([]);
  expect(found({ ...named, ports: [{ protocol: "TCP", first: 1, last: 65_535 }] })).toEqual([]);
  expect(found({ ...named, allowDomains: [] })).toEqual([
    expect.stringMatching(/^spec\.egress\.check_sni: means nothing without allow_domains/),
  ]);
  for (const port of [
    { protocol: "TCP", first: 444, last: 8_443 },
    { protocol: "UDP", first: 443, last: 443 },
  ] as const) {
    expect(found({ ...named, ports: [port] })).toEqual([
      expect.stringMatching(/^spec\.egress\.check_sni: means nothing without TCP 443/),
    ]);
  }
});

test("a range of ports ends after it begins", () => {
  expect(found({ ports: [{ protocol: "TCP", first: 80, last: 79 }] })).toEqual([
    "spec.egress.ports[0].last: 79 is less than first, 80",
  ]);
});

describe("a tenant's policy", () => {
  const of = (change: object) =>
    tenantNetworkViolations({ ...noNetwork, ...change }, "network", host).map(({ field }) => field);

  test("may name a proxy that the host has", () => {
    expect(of({ proxy: "web" })).toEqual([]);
    expect(of({ proxy: "other" })).toEqual(["network.proxy"]);
  });

  test("forwards ports of TCP", () => {
    expect(of({ forwardPorts: [{ protocol: "TCP", first: 1, last: 9 }] })).toEqual([]);
    expect(of({ forwardPorts: [{ protocol: "UDP", first: 1, last: 9 }] })).toEqual([
      "network.forward_ports[0]",
    ]);
    expect(of({ forwardPorts: [{ protocol: "TCP", first: 9, last: 1 }] })).toEqual([
      "network.forward_ports[0].last",
    ]);
  });

  test("has its egress policy checked where it stands", () => {
    expect(of({ egress: { ...defaultEgress, allowCidrs: ["::/0"] } })).toEqual([
      "network.egress.allow_cidrs[0]",
    ]);
  });
});

test.each([
  ["443", "TCP 443"],
  ["443/tcp", "TCP 443"],
  ["53/udp", "UDP 53"],
  ["8000-8100/tcp", "TCP 8000-8100"],
  ["1-65535", "TCP 1-65535"],
])("%s is %s", (text, expected) => {
  const range = parsePorts(text);
  expect(range && portsText(range)).toBe(expected);
});

test.each(["", "0", "65536", "80-79", "80-", "-80", "80/sctp", "80 ", "080", "1-65536", "tcp/80"])(
  "%j is no range of ports",
  (text) => {
    expect(parsePorts(text)).toBeUndefined();
  },
);
