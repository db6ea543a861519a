// The keys that say which networks a host gives its sandboxes: address pools and names of the host, proxies, and what tenants and
// templates may have of them.

import { isIPv4 } from "node:net";
import { addressText, parseAddress, parseCidr } from "../network/addresses.ts";
import { canonicalDomain, domainProblem } from "../network/domains.ts";
import { networkModes } from "../network/policy.ts";
import { parsePorts } from "../network/ports.ts";
import { choice, flag, integer, list, named, section, size, type TextRule, text } from "./field.ts";
import * as rule from "./rule.ts";

/** Where a proxy or a resolver is. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

const dnsPort = 53;

const block: TextRule = {
  name: 'a block of IPv4 addresses, as "10.20.0.0/16"',
  read(given) {
    if (parseCidr(given) !== undefined) return { value: given };
    if (given.includes(":")) return { problem: "is IPv6, which sandboxes do not have" };
    const [address = "", prefix = ""] = given.split("/");
    const number = parseAddress(address);
    const length = Number(prefix);
    if (number === undefined || !/^\d{1,2}$/.test(prefix) || length > 32)
      return { problem: `is not ${this.name}` };
    const base = number - (number % 2 ** (32 - length));
    return { problem: "has bits set behind its prefix", hint: `write ${addressText(base)}/${prefix}` };
  },
};

const domain: TextRule = {
  name: 'a name, or "*." and a name for every name below it',
  read(given) {
    return domainProblem(given) ?? { value: canonicalDomain(given) };
  },
};

const ports: TextRule = {
  name: '"443/tcp", "8000-8100/tcp" or "53/udp"',
  read(given) {
    return parsePorts(given) === undefined ? { problem: `is not ${this.name}` } : { value: given };
  },
};

const tcpPorts: TextRule = {
  name: 'a port or a range of ports of TCP, as "8080" or "8000-8100"',
  read(given) {
    return parsePorts(given)?.protocol === "TCP" ? { value: given } : { problem: `is not ${this.name}` };
  },
};

const modeNames = networkModes.map((mode) => mode.toLowerCase());

const modeName: TextRule = {
  name: modeNames.map((mode) => `"${mode}"`).join(", "),
  read(given) {
    return modeNames.includes(given) ? { value: given } : { problem: "is unknown" };
  },
};

const proxyAddress: TextRule<Endpoint> = {
  name: '"address:port", an address of IPv4',
  read(given) {
    const endpoint = readEndpoint(given);
    return endpoint === undefined ? { problem: `is not ${this.name}` } : { value: endpoint };
  },
};

const resolverAddress: TextRule = {
  name: 'an address of IPv4, or "address:port"',
  read(given) {
    return parseResolver(given) === undefined ? { problem: `is not ${this.name}` } : { value: given };
  },
};

const proxyName: TextRule = {
  name: "the name of a proxy",
  read(given) {
    return rule.templateName.test(given) ? { value: given } : { problem: `is not ${this.name}` };
  },
};

/** Programs read these lists each in their own way; nothing in it is another separator, or a shell's. */
const exception: TextRule = {
  name: 'a name, ".suffix", address or block',
  read(given) {
    return /^[A-Za-z0-9.*:_/-]{1,253}$/.test(given) ? { value: given } : { problem: `is not ${this.name}` };
  },
};

/** Undefined for what is none. */
export function parseResolver(given: string): Endpoint | undefined {
  return isIPv4(given) ? { address: given, port: dnsPort } : readEndpoint(given);
}

function readEndpoint(given: string): Endpoint | undefined {
  const [, address = "", digits = ""] = /^([\d.]+):([1-9]\d{0,4})$/.exec(given) ?? [];
  const port = Number(digits);
  return isIPv4(address) && port >= 1 && port <= 65_535 ? { address, port } : undefined;
}

export const networkSection = () =>
  section("Networks of sandboxes. See docs/networks.md.", {
    pools: list(block, {
      max: 16,
      default: ["10.213.0.0/16"],
      meaning:
        "Private addresses that nothing else here uses. Each tenant with a network gets a subnet of them.",
    }),
    subnet_prefix: integer({
      min: 16,
      max: 29,
      default: 25,
      meaning: "Size of a tenant's subnet: 25 has room for 125 sandboxes with a network, 24 for 253.",
    }),
    allow_private: list(block, {
      max: 64,
      default: [],
      meaning: "Addresses that are not public and that policies may allow all the same. Empty: none.",
    }),
    resolvers: list(resolverAddress, {
      max: 8,
      default: [],
      meaning: "Who is asked for names on behalf of sandboxes, in turn. Empty: those of /etc/resolv.conf.",
    }),
    dns_queries_per_second: integer({
      min: 1,
      max: 10_000,
      default: 50,
      meaning: "Questions that one sandbox may ask per second; further ones are refused.",
    }),
    sni_port: integer({
      min: 1_024,
      max: 65_535,
      default: 10_443,
      meaning: "Of the gateways of tenants: where TLS connections arrive whose server names are checked.",
    }),
  });

export const proxiesTable = () =>
  named({
    meaning: "A proxy that tenants can be held to. NAME as of templates. See docs/networks.md.",
    namePattern: rule.templateName,
    item: section("A proxy for HTTP and CONNECT.", {
      address: text(proxyAddress, { meaning: "Required. Where it is, as sandboxes reach it." }),
      no_proxy: list(exception, {
        max: 64,
        default: [],
        meaning: "Told to programs as NO_PROXY, beside the sandbox itself. It opens nothing.",
      }),
    }),
  });

const lists = 256;

const scope = { of: ["public", "listed"] } as const;
const scopeMeaning =
  "public: every public address, and allow_cidrs. listed: allow_cidrs and allow_domains, and nothing else.";
const portsMeaning = "On which ports.";
const cidrsMeaning =
  "Addresses that may be reached. Those that are not public only within [network] allow_private.";
const denyMeaning = "Addresses that may not be reached, whatever else allows them.";
const domainsMeaning = "With listed: names whose addresses may be reached. No other name is then answered.";

const sniMeaning =
  "Whether TLS on port 443 to these names is dialed by the daemon, by the server name (SNI) that it asks for.";

const rate = { min: 8_192, max: 12_500_000_000 };

/** Kept equal to `sandboxd.v1.NetworkLimits`; a test compares them. */
export const limitsSection = (meaning: string) =>
  section(meaning, {
    transmit_bytes_per_second: size({ ...rate, meaning: "What it sends. Bytes per second." }),
    receive_bytes_per_second: size({ ...rate, meaning: "What it receives. Bytes per second." }),
    connections: integer({ min: 1, max: 1_000_000, meaning: "Connections open at once." }),
    new_connections_per_second: integer({ min: 1, max: 1_000_000, meaning: "New connections per second." }),
    packets_per_second: integer({ min: 10, max: 10_000_000, meaning: "Packets that it sends per second." }),
  });

/** Of tenants that were never put. Kept equal to `sandboxd.v1.TenantNetwork`. */
export const tenantNetworkSection = () =>
  section("Networks of its sandboxes.", {
    modes: list(modeName, {
      max: 3,
      default: ["none"],
      meaning: "Modes that they may have; none always is one.",
    }),
    allow_peers: flag({ default: false, meaning: "Whether they reach each other." }),
    forward_ports: list(tcpPorts, {
      max: 64,
      default: ["8080"],
      meaning: "Their ports that ForwardPort and previews may reach.",
    }),
    proxy: text(proxyName, { meaning: "A proxy of [proxies.NAME]: that and nothing else. Left out: none." }),
    egress: section("Where they may connect to.", {
      scope: choice({ ...scope, default: "public", meaning: scopeMeaning }),
      ports: list(ports, { max: 64, default: ["443/tcp"], meaning: portsMeaning }),
      allow_cidrs: list(block, { max: lists, default: [], meaning: cidrsMeaning }),
      deny_cidrs: list(block, { max: lists, default: [], meaning: denyMeaning }),
      allow_domains: list(domain, { max: lists, default: [], meaning: domainsMeaning }),
      check_sni: flag({ default: false, meaning: sniMeaning }),
    }),
    limits: limitsSection("The most that each of them may have. A bound that is left out is none."),
  });

/** Without any of its keys, a sandbox of the template has its tenant's. */
export const templateEgress = () =>
  section(
    "Where its sandboxes may connect to, within their tenant's policy. Left out as a whole: that policy.",
    {
      scope: choice({ ...scope, meaning: `${scopeMeaning} Left out: public.` }),
      ports: list(ports, { max: 64, meaning: `${portsMeaning} Left out: 443/tcp.` }),
      allow_cidrs: list(block, { max: lists, meaning: cidrsMeaning }),
      deny_cidrs: list(block, { max: lists, meaning: denyMeaning }),
      allow_domains: list(domain, { max: lists, meaning: domainsMeaning }),
      check_sni: flag({ meaning: `${sniMeaning} Left out: false.` }),
    },
  );

export const templateNetworkLimits = () =>
  limitsSection("Bounds of its sandboxes' traffic, within their tenant's. Left out: the tenant's.");

export const templateNetworkMode = () =>
  choice({
    of: ["none", "internal", "egress"],
    default: "none",
    meaning:
      "How they are connected, as far as the tenant's policy allows it. none: a loopback interface only. internal: the tenant's network. egress: out of it too.",
  });
