// What this process's network namespace has: interfaces, their addresses, and the blocks that it routes.

import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import type { Cidr } from "./addresses.ts";

/** From linux/route.h. */
const routeIsUp = 0x1;

/** Also of an interface that is down or without an address. /proc/net is that of the reader's own namespace, unlike /sys/class/net. */
export function hasInterface(name: string, table = readFileSync("/proc/net/dev", "latin1")): boolean {
  return table.split("\n").some((line) => line.trimStart().startsWith(`${name}:`));
}

/** The addresses of all of its interfaces. */
export function ownAddresses(): ReadonlySet<string> {
  return new Set(
    Object.values(networkInterfaces()).flatMap((ones = []) => ones.map(({ address }) => address)),
  );
}

/**
 * The blocks that are routed to interfaces whose name does not begin with `own`. The default route is none: what it leads to
 * is public, or what a pool was given to be used for.
 */
export function routedBlocks(
  own: string,
  table = readFileSync("/proc/net/route", "latin1"),
): readonly Cidr[] {
  return table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [name = "", destination = "", , flags = "", , , , mask = ""] = line.split("\t");
      if (destination === "" || name.startsWith(own)) return [];
      const prefix = prefixOf(hexAddress(mask.trim()));
      if (prefix === 0 || (Number.parseInt(flags, 16) & routeIsUp) === 0) return [];
      return [{ base: hexAddress(destination), prefix }];
    });
}

/** The kernel writes addresses as it has them in memory: the first byte is the last of the text on little-endian machines. */
function hexAddress(text: string): number {
  return Buffer.from(text, "hex").readUInt32LE(0);
}

function prefixOf(mask: number): number {
  return 32 - Math.log2(2 ** 32 - mask);
}
