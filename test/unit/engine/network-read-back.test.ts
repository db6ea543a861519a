import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findNetworkFaults } from "../../../src/engine/network-read-back.ts";

const heading = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n";
const line = (name: string) =>
  `${name.padStart(6)}:     400       4    0    0    0     0          0         0        0\n`;
/** As the kernel shows it, with a route besides the address. */
const trie = (...addresses: readonly string[]) =>
  ["Main:", "Local:"]
    .map((table) => {
      const own = ["127.0.0.1", ...addresses].map((one) => `        |-- ${one}\n           /32 host LOCAL\n`);
      return `${table}\n  +-- 0.0.0.0/1 2 0 2\n        |-- 10.100.0.63\n           /32 link BROADCAST\n${own.join("")}`;
    })
    .join("");
const ownIpv6 = "00000000000000000000000000000001 01 80 10 80       lo\n";

const network = {
  mode: "bridge",
  network: "sandboxd-host_net_acme",
  address: "10.100.0.2",
  mac: "06:73:0a:64:00:02",
  dns: "10.100.0.1",
} as const;
/** No kernel's: so of the MAC nothing is believed here. */
const noMac = `its MAC is not to be read, not ${network.mac}`;

describe("how the kernel shows a container to be connected", () => {
  let root: string;
  const write = (files: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, "7/net", name), text);
  };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "network-"));
    mkdirSync(join(root, "7/net"), { recursive: true });
    mkdirSync(join(root, "7/root/sys/class/net/eth0"), { recursive: true });
    writeFileSync(join(root, "7/root/sys/class/net/eth0/address"), `${network.mac}\n`);
    writeFileSync(join(root, "7/root/sys/class/net/eth0/iflink"), "10\n");
    write({ dev: heading + line("lo") + line("eth0"), fib_trie: trie(network.address), if_inet6: "" });
  });
  afterEach(() => rmSync(root, { recursive: true }));

  const faults = () => findNetworkFaults(network, 7, root);

  test("is believed of all but a /sys that is none of the kernel's", () => {
    expect(faults()).toEqual([noMac]);
    write({ if_inet6: ownIpv6 });
    expect(faults()).toEqual([noMac]);
    rmSync(join(root, "7/net/if_inet6"));
    expect(faults()).toEqual([noMac]);
  });

  test("without a network it has loopback, and what kernels put into every namespace", () => {
    write({ dev: heading + line("lo") + line("sit0") + line("tunl0") });
    expect(findNetworkFaults({ mode: "none" }, 7, root)).toEqual([]);
    write({ dev: heading + line("lo") + line("eth0") });
    expect(findNetworkFaults({ mode: "none" }, 7, root)).toEqual(["it has another interface, eth0"]);
  });

  test("is otherwise where there is another interface, address or protocol, or none", () => {
    write({ dev: heading + line("lo") + line("eth0") + line("eth1") });
    expect(faults()).toEqual(["it has another interface, eth1", noMac]);
    write({ dev: heading + line("lo") });
    expect(faults()).toEqual(["it has no interface eth0"]);
    write({ dev: heading + line("lo") + line("eth0"), fib_trie: trie("10.100.0.3") });
    expect(faults()).toContain("its address is 10.100.0.3, not 10.100.0.2");
    write({ fib_trie: trie(network.address, "10.200.0.2") });
    expect(faults()).toContain("its address is 10.100.0.2, 10.200.0.2, not 10.100.0.2");
    write({ fib_trie: trie() });
    expect(faults()).toContain("its address is none, not 10.100.0.2");
    write({
      fib_trie: trie(network.address),
      if_inet6: `${ownIpv6}fe80000000000000047300fffe640002 09 40 20 80     eth0\n`,
    });
    expect(faults()).toEqual(["it has an IPv6 address", noMac]);
  });

  test("cannot be told of a process that has ended", () => {
    expect(() => findNetworkFaults(network, 8, root)).toThrow("ENOENT");
  });
});
