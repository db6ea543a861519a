// What the kernel's settings say of this network namespace that matters to networks of sandboxes.

import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface NetworkFacts {
  /** `net.ipv4.ip_forward`: without it nothing leaves a bridge, whatever policy says. The engine sets it unless told not to. */
  readonly forwards: boolean;
  /**
   * `net.bridge.bridge-nf-call-iptables`: whether rules for packets that are forwarded see those among ports of one bridge too. Absent
   * where br_netfilter is not loaded: they do not.
   */
  readonly filtersBridged?: boolean;
  /** `net.ipv4.conf.all.route_localnet`: whether services on 127.0.0.1 can be reached by others that forge their way. */
  readonly routesLoopback: boolean;
  /** `nf_conntrack_max` and `nf_conntrack_count`: connections that are tracked. Absent where none are. */
  readonly connections?: { readonly most: number; readonly now: number };
}

/** /proc/sys/net shows the namespace of whoever reads it. */
export function networkFacts(sysctls = "/proc/sys/net"): NetworkFacts {
  const value = (name: string) => numberIn(join(sysctls, name));
  const bridged = value("bridge/bridge-nf-call-iptables");
  const [most, now] = [value("netfilter/nf_conntrack_max"), value("netfilter/nf_conntrack_count")];
  return {
    forwards: value("ipv4/ip_forward") === 1,
    ...(bridged === undefined ? {} : { filtersBridged: bridged !== 0 }),
    routesLoopback: value("ipv4/conf/all/route_localnet") === 1,
    ...(most === undefined || now === undefined ? {} : { connections: { most, now } }),
  };
}

function numberIn(file: string): number | undefined {
  try {
    return Number(readFileSync(file, "latin1"));
  } catch {
    return undefined;
  }
}
