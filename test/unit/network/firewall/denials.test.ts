import { describe, expect, test } from "vitest";
import { createDenialCounts } from "../../../../src/network/firewall/denials.ts";
import type { ListedElement } from "../../../../src/network/firewall/listing.ts";

const mac = "06:73:0a:4d:00:02";

function open() {
  let now = 100_000;
  const owners = new Map([["10.77.0.2", { sandboxId: "a", sinceMs: 0 }]]);
  const counts = createDenialCounts({ ownerOf: (address) => owners.get(address), nowMs: () => now });
  return {
    counts,
    owners,
    pass: (ms: number) => {
      now += ms;
    },
  };
}

const denied = (mark: number, packets: number, of = mac): ListedElement => ({
  parts: [of, String(mark)],
  id: `${of} . ${mark}`,
  packets,
});
const tried = (address: string, expires: number, mark = 1): ListedElement => ({
  parts: [mac, address, "tcp", "80", String(mark)],
  id: `${mac} . ${address} . tcp . 80 . ${mark}`,
  expires,
});

describe("counts of what was refused", () => {
  test("rise by what the kernel counted since, also when it began anew", () => {
    const { counts } = open();
    counts.count("inet", [denied(1, 5), denied(2, 1)]);
    counts.count("bridge", [denied(3, 2)]);
    counts.count("inet", [denied(1, 7), denied(2, 1)]);
    counts.count("inet", [denied(1, 3)]);
    counts.count("inet", []);
    expect(counts.count("inet", [denied(1, 1)])).toBe(true);
    expect(counts.count("inet", [denied(1, 1)])).toBe(false);
    expect(counts.all().get("a")).toEqual({
      ...{ policy: 11, host: 1, peer: 2, spoofed: 0, connections: 0, packets: 0 },
    });
  });

  test("are of whoever has the address", () => {
    const { counts, owners } = open();
    counts.count("inet", [denied(1, 5), denied(1, 9, "02:42:ac:11:00:02")]);
    owners.set("10.77.0.2", { sandboxId: "b", sinceMs: 100_000 });
    counts.reassign("10.77.0.2");
    counts.count("inet", [denied(1, 8)]);
    counts.count("inet", [denied(1, 9)]);
    expect(counts.all().get("a")?.policy).toBe(5);
    expect(counts.all().get("b")?.policy).toBe(1);
    expect(counts.all().size).toBe(2);
    counts.forget("a");
    expect(counts.all().has("a")).toBe(false);
  });
});

describe("samples of what was refused", () => {
  test("tell each destination once, and together all that was counted", () => {
    const { counts, pass } = open();
    counts.count("inet", [denied(1, 10)]);
    const first = counts.sample("inet", [tried("8.8.8.8", 14), tried("9.9.9.9", 13)]);
    expect(first.map(({ destination, count }) => [destination, count])).toEqual([
      ["8.8.8.8:80", 1],
      ["9.9.9.9:80", 9],
    ]);
    expect(first[0]).toMatchObject({ sandboxId: "a", reason: "policy", protocol: "TCP" });
    pass(5_000);
    expect(counts.sample("inet", [tried("8.8.8.8", 9), tried("9.9.9.9", 8)])).toEqual([]);
    // it went, and came anew
    pass(20_000);
    counts.count("inet", [denied(1, 12)]);
    expect(counts.sample("inet", [tried("8.8.8.8", 15)]).map(({ count }) => count)).toEqual([2]);
  });

  test("those of an earlier owner of the address are not told", () => {
    const { counts, owners } = open();
    owners.set("10.77.0.2", { sandboxId: "b", sinceMs: 95_000 });
    const told = counts.sample("inet", [tried("8.8.8.8", 2), tried("9.9.9.9", 14)]);
    expect(told.map(({ destination }) => destination)).toEqual(["9.9.9.9:80"]);
  });
});
