import { closeSync, openSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { listeningPort, listensOn } from "../../../src/monitor/tcp-table.ts";
import { temporaryDirectory } from "../config/fixture.ts";

const heading =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const tail = "00000000:00000000 00:00000000 00000000     0        0 5 1 0000000000000000 100 0 0 10 0";
const lineOf = (port: number, state = "0A", address = "0100007F") =>
  `   0: ${address}:${port.toString(16).toUpperCase().padStart(4, "0")} ${"0".repeat(address.length)}:0000 ${state} ${tail}`;

/** Looks for the port in a file that reads like the kernel's. */
async function found(lines: readonly string[], port: number): Promise<boolean> {
  const path = join(temporaryDirectory(), "tcp");
  writeFileSync(path, [heading, ...lines, ""].join("\n"));
  return atPath(path, port);
}

async function atPath(path: string, port: number): Promise<boolean> {
  const descriptor = openSync(path, "r");
  try {
    return await listensOn(descriptor, port);
  } finally {
    closeSync(descriptor);
  }
}

describe("a line", () => {
  test("of a listening socket has its port, under either version of IP", () => {
    expect(listeningPort(lineOf(8080))).toBe(8080);
    expect(listeningPort(lineOf(443, "0A", "0".repeat(32)))).toBe(443);
  });

  test("of any other socket has none", () => {
    for (const state of ["01", "02", "06", "08"]) expect(listeningPort(lineOf(8080, state))).toBe("other");
  });

  test("of no socket means nothing", () => {
    for (const line of [heading, "", "   0: 0100007F:1F90", "x".repeat(200)]) {
      expect(listeningPort(line)).toBeUndefined();
    }
  });
});

describe("the table", () => {
  test("tells each port that something listens on, and no other", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.integer({ min: 1, max: 65_535 }), { maxLength: 50 }),
        fc.integer({ min: 1, max: 65_535 }),
        async (ports, port) => {
          expect(
            await found(
              ports.map((one) => lineOf(one)),
              port,
            ),
          ).toBe(ports.includes(port));
        },
      ),
      { numRuns: 30 },
    );
  });

  test("is read beyond one chunk", async () => {
    const many = Array.from({ length: 3_000 }, (_, index) => lineOf(index + 1));
    expect(await found([...many, lineOf(60_000)], 60_000)).toBe(true);
  });

  test("is not read beyond its bound, however many sockets listen", async () => {
    const many = Array.from({ length: 10_000 }, () => lineOf(1));
    expect(await found([...many, lineOf(60_000)], 60_000)).toBe(false);
  });

  test("is not read beyond the listening sockets", async () => {
    expect(await found([lineOf(80), lineOf(81, "01"), lineOf(60_000)], 60_000)).toBe(false);
  });

  test("of this machine tells a server of this process", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    expect(await atPath("/proc/self/net/tcp", address.port)).toBe(true);
  });
});
