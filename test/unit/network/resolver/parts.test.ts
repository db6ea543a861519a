import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import type { Answer } from "../../../../src/network/resolver/answer.ts";
import { hostUpstreams } from "../../../../src/network/resolver/host-upstreams.ts";
import { createKnownAnswers } from "../../../../src/network/resolver/known-answers.ts";
import type { ResourceRecord } from "../../../../src/network/resolver/message.ts";
import { createSeats, type Seat } from "../../../../src/network/resolver/seats.ts";

describe("seats", () => {
  const crowded = () => createSeats({ nowMs: () => 0, perSecond: 1_000, most: 64 });

  test("are as many as the rate gives, and twice as many after a pause", () => {
    let nowMs = 0;
    const seats = createSeats({ nowMs: () => nowMs, perSecond: 10 });
    const taken = () => {
      let count = 0;
      for (let tries = 0; tries < 100; tries += 1) {
        const seat = seats.take("a");
        if (seat !== undefined) count += 1;
        seat?.leave();
      }
      return count;
    };
    expect(taken()).toBe(20);
    nowMs += 500;
    expect(taken()).toBe(5);
    nowMs += 60_000;
    expect(taken()).toBe(20);
    expect(seats.counts().get("a")).toEqual({ queries: 0, refused: 255 });
  });

  test("are left for whoever comes next, however many want all of them", () => {
    const seats = crowded();
    const kept: Seat[] = [];
    for (let hog = 0; hog < 20; hog += 1) {
      for (let tries = 0; tries < 40; tries += 1) {
        const seat = seats.take(`hog ${hog}`);
        if (seat !== undefined) kept.push(seat);
      }
    }
    expect(kept.length).toBeGreaterThan(20);
    expect(kept.length).toBeLessThan(64);
    expect(seats.take("calm")).toBeDefined();
    for (const seat of kept) seat.leave();
    expect(seats.take("hog 1")).toBeDefined();
  });

  test("never are more than there are", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(100), fc.boolean()), { maxLength: 400 }), (steps) => {
        const seats = crowded();
        const kept: Seat[] = [];
        for (const [who, leaves] of steps) {
          const seat = leaves ? undefined : seats.take(`${who}`);
          if (seat !== undefined) kept.push(seat);
          if (leaves) kept.shift()?.leave();
          expect(kept.length).toBeLessThanOrEqual(64);
        }
      }),
    );
  });
});

describe("known answers", () => {
  const record = (name: string): ResourceRecord => ({ type: "A", name, ttl: 60, data: "8.8.8.8" });
  const answer = (name: string): Answer => ({ code: "NOERROR", records: [record(name)], ttlMs: 60_000 });
  const askAll = async ({ name }: { readonly name: string }) => answer(name);

  test("stay within their bytes, and who fills them loses the oldest of its own", async () => {
    const known = createKnownAnswers({ ask: askAll, nowMs: () => 0, maxBytes: 20_000 });
    await known.ask("calm", { name: "a.com", type: "A" });
    for (let index = 0; index < 500; index += 1) await known.ask("hog", { name: `n${index}.com`, type: "A" });
    expect(known.bytes()).toBeLessThanOrEqual(20_000);
    expect(known.bytes()).toBeGreaterThan(15_000);
    expect(known.held("calm", { name: "a.com", type: "A" })).toBeDefined();
    expect(known.held("hog", { name: "n0.com", type: "A" })).toBeUndefined();
    expect(known.held("hog", { name: "n499.com", type: "A" })).toBeDefined();
    for (let index = 0; index < 5; index += 1) await known.ask("calm", { name: `n${index}.com`, type: "A" });
    expect(known.held("calm", { name: "a.com", type: "A" })).toBeDefined();
    expect(known.bytes()).toBeLessThanOrEqual(20_000);
    known.drop("hog");
    known.drop("calm");
    expect(known.bytes()).toBe(0);
  });

  test("are apart by type and by shelf", async () => {
    const known = createKnownAnswers({ ask: askAll, nowMs: () => 0 });
    await known.ask("one", { name: "a.com", type: "A" });
    expect(known.held("one", { name: "a.com", type: "A" })).toBeDefined();
    expect(known.held("one", { name: "a.com", type: "MX" })).toBeUndefined();
    expect(known.held("two", { name: "a.com", type: "A" })).toBeUndefined();
  });

  test("one that was dropped while it was asked for is not kept", async () => {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const known = createKnownAnswers({ ask: () => promise, nowMs: () => 0 });
    const asking = known.ask("one", { name: "a.com", type: "A" });
    known.drop("one");
    resolve(answer("a.com"));
    expect((await asking).records).toHaveLength(1);
    expect(known.bytes()).toBe(0);
  });

  test("a question that failed is asked again", async () => {
    let count = 0;
    const known = createKnownAnswers({
      ask: async ({ name }) => {
        count += 1;
        if (count === 1) throw new Error("no");
        return answer(name);
      },
      nowMs: () => 0,
    });
    await expect(known.ask("one", { name: "a.com", type: "A" })).rejects.toThrow("no");
    expect((await known.ask("one", { name: "a.com", type: "A" })).code).toBe("NOERROR");
  });
});

describe("the host's own nameservers", () => {
  const directory = mkdtempSync(join(tmpdir(), "resolv-"));
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  test("are those of its file, in their order", () => {
    const path = join(directory, "resolv.conf");
    const lines = [
      "# made by hand",
      "search example.com",
      "nameserver 192.0.2.53",
      "nameserver\tfe80::1%eth0 ",
    ];
    writeFileSync(
      path,
      [...lines, " nameserver 2001:db8::53", "nameserver names.example.com", ""].join("\n"),
    );
    expect(hostUpstreams(path).map(({ address }) => address)).toEqual([
      "192.0.2.53",
      "fe80::1%eth0",
      "2001:db8::53",
    ]);
  });

  test("are none without it", () => {
    expect(hostUpstreams(join(directory, "absent"))).toEqual([]);
  });
});
