// The nameservers that the host itself uses.

import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { Nameserver } from "./exchange.ts";

const port = 53;

/** In their order; none where the file is not there. resolv.conf(5). */
export function hostUpstreams(path = "/etc/resolv.conf"): readonly Nameserver[] {
  return linesOf(path).flatMap((line) => {
    const [keyword, address = ""] = line.trim().split(/\s+/);
    return keyword === "nameserver" && isIP(address) !== 0 ? [{ address, port }] : [];
  });
}

function linesOf(path: string): readonly string[] {
  try {
    return readFileSync(path, "utf8").split("\n");
  } catch {
    return [];
  }
}
