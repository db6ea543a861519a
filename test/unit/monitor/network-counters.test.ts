import { describe, expect, it } from "vitest";
import { exceptLoopback, sumInterfaces } from "../../../src/monitor/network-counters.ts";

const heading = [
  "Inter-|   Receive                                                |  Transmit",
  " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
];

function sum(...lines: readonly string[]) {
  const text = Buffer.from([...heading, ...lines, ""].join("\n"));
  return sumInterfaces(text, text.length, exceptLoopback);
}

describe("traffic of a network namespace", () => {
  it("adds up all interfaces but loopback", () => {
    expect(
      sum(
        "    lo:    9999      99    0    9    0     0          0         0     9999      99    0    9    0     0       0          0",
        "  eth0:     100       1    2    3    4     5          6         7      200       8    9   10   11    12      13         14",
        " local:    1000      10    0   30    0     0          0         0     2000      80    0  100    0     0       0          0",
      ),
    ).toEqual({ rxBytes: 1100, rxPackets: 11, rxDropped: 33, txBytes: 2200, txPackets: 88, txDropped: 110 });
  });

  it("reads a number that follows the colon without a blank", () => {
    expect(sum("  eth0:1234567890 5 0 0 0 0 0 0 77 6 0 0 0 0 0 0").rxBytes).toBe(1234567890);
  });

  it("is nothing where there is only loopback", () => {
    expect(sum("    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")).toEqual({
      rxBytes: 0,
      rxPackets: 0,
      rxDropped: 0,
      txBytes: 0,
      txPackets: 0,
      txDropped: 0,
    });
  });
});
