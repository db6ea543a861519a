// Ranges of ports as texts: "443/tcp", "8000-8100/tcp", "53/udp". Without a protocol it is TCP.

import type { PortRange } from "./policy.ts";

const mostPort = 65_535;

/** Undefined for what is none. */
export function parsePorts(text: string): PortRange | undefined {
  const [, from, to = from, protocol = "tcp"] =
    /^([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?(?:\/(tcp|udp))?$/.exec(text) ?? [];
  const [first, last] = [Number(from), Number(to)];
  if (from === undefined || last < first || last > mostPort) return undefined;
  return { protocol: protocol === "udp" ? "UDP" : "TCP", first, last };
}

/** In messages: "TCP 443", "TCP 8000-8100". */
export function portsText({ protocol, first, last }: PortRange): string {
  return `${protocol} ${first}${last === first ? "" : `-${last}`}`;
}
