// Reads from the kernel how a running container is connected: the engine's word is not enough, and rules know a sandbox by its address.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { insideName, ownInterface } from "../network/link.ts";
import type { ContainerNetwork } from "./network-plan.ts";

/** Some kernels put these into each new namespace, without an address and down, where they stay: they need a capability. */
const kernelsOwn: ReadonlySet<string> = new Set([
  ...["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0"],
  ...["sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"],
]);

/**
 * Everything that is not as planned, looked at through one process of the container, in its namespace.
 *
 * @throws what reading throws, if the process has ended.
 */
export function findNetworkFaults(
  network: ContainerNetwork,
  pid: number,
  procRoot = "/proc",
): readonly string[] {
  const process = join(procRoot, String(pid));
  const interfaces = interfacesIn(readFileSync(join(process, "net/dev"), "latin1"));
  const wanted = network.mode === "none" ? ["lo"] : ["lo", insideName];
  const others = interfaces.filter((name) => !wanted.includes(name) && !kernelsOwn.has(name));
  const missing = wanted.filter((name) => !interfaces.includes(name));
  const seen = [
    ...others.map((name) => `it has another interface, ${name}`),
    ...missing.map((name) => `it has no interface ${name}`),
  ];
  if (network.mode === "none" || missing.length > 0) return seen;
  const addresses = localAddressesIn(readFileSync(join(process, "net/fib_trie"), "latin1"));
  const mac = ownInterface(pid, procRoot)?.mac;
  return [
    ...seen,
    ...(addresses.length === 1 && addresses[0] === network.address
      ? []
      : [`its address is ${addresses.join(", ") || "none"}, not ${network.address}`]),
    ...(hasIpv6(process) ? ["it has an IPv6 address"] : []),
    ...(mac === network.mac ? [] : [`its MAC is ${mac ?? "not to be read"}, not ${network.mac}`]),
  ];
}

/** The first two lines are headings; then each begins with a name. */
function interfacesIn(text: string): readonly string[] {
  return text
    .split("\n")
    .slice(2)
    .flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []);
}

/** Addresses of the namespace's own, but for loopback: those of which the table of routes says "host LOCAL", which it says twice. */
function localAddressesIn(text: string): readonly string[] {
  const found = text.matchAll(/\|-- (\S+)\n\s+\/32 host LOCAL/g);
  const addresses = Array.from(found, ([, address = ""]) => address);
  return [...new Set(addresses)].filter((address) => !address.startsWith("127."));
}

/** Loopback's own aside. A kernel without IPv6 has no such file. */
function hasIpv6(process: string): boolean {
  try {
    const lines = readFileSync(join(process, "net/if_inet6"), "latin1").split("\n");
    return lines.some((line) => line !== "" && !/\slo$/.test(line));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}
