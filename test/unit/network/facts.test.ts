import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { networkFacts } from "../../../src/network/facts.ts";

describe("the kernel's settings", () => {
  let root: string;
  const write = (name: string, value: number) => {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), `${value}\n`);
  };
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "facts-"));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test("are read as they are", () => {
    write("ipv4/ip_forward", 1);
    write("ipv4/conf/all/route_localnet", 1);
    write("bridge/bridge-nf-call-iptables", 0);
    write("netfilter/nf_conntrack_max", 65_536);
    write("netfilter/nf_conntrack_count", 12);
    expect(networkFacts(root)).toEqual({
      forwards: true,
      routesLoopback: true,
      filtersBridged: false,
      connections: { most: 65_536, now: 12 },
    });
  });

  test("of modules that are not loaded are absent", () => {
    write("ipv4/ip_forward", 0);
    expect(networkFacts(root)).toEqual({ forwards: false, routesLoopback: false });
  });
});
