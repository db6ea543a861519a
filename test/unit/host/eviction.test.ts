import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Candidate,
  chooseVictim,
  type EvictionCause,
  evictionMessage,
  overuse,
} from "../../../src/host/eviction.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { recordOf, resources, states } from "../sandbox/fixture.ts";

const mebibyte = 2 ** 20;

interface Use {
  readonly priority?: number;
  readonly usedMib?: number;
  readonly requestMib?: number;
  readonly writtenBytes?: number;
}

function candidateOf(
  id: string,
  { priority = 0, usedMib, requestMib = 32, writtenBytes = 0 }: Use,
  change: Partial<SandboxRecord> = {},
): Candidate {
  const record = recordOf({ id, ...change });
  const memoryRequestBytes = requestMib * mebibyte;
  const spec = { ...record.spec, priority, resources: { ...resources, memoryRequestBytes } };
  return {
    record: { ...record, spec },
    writtenBytes,
    ...(usedMib === undefined ? {} : { workingSetBytes: usedMib * mebibyte }),
  };
}

const chosen = (cause: EvictionCause, candidates: readonly Candidate[]) =>
  chooseVictim(cause, candidates)?.record.id;

describe("under memory pressure", () => {
  test("the lowest priority goes first, however little it uses", () => {
    const candidates = [
      candidateOf("high", { priority: 10, usedMib: 900 }),
      candidateOf("low", { priority: -10, usedMib: 1 }),
      candidateOf("middle", { usedMib: 500 }),
    ];
    expect(chosen("MEMORY_PRESSURE", candidates)).toBe("low");
  });

  test("among equals goes who uses the most of its request", () => {
    const candidates = [
      candidateOf("large within", { usedMib: 900, requestMib: 1_000 }),
      candidateOf("small beyond", { usedMib: 40, requestMib: 10 }),
      candidateOf("small within", { usedMib: 5, requestMib: 10 }),
    ];
    expect(chosen("MEMORY_PRESSURE", candidates)).toBe("small beyond");
  });

  test("of the same overuse the larger goes, then the younger", () => {
    const same = [
      candidateOf("small", { usedMib: 10, requestMib: 10 }),
      candidateOf("large", { usedMib: 20, requestMib: 20 }),
    ];
    expect(chosen("MEMORY_PRESSURE", same)).toBe("large");
    const twins = [
      candidateOf("old", { usedMib: 10 }, { createdAtMs: 1 }),
      candidateOf("young", { usedMib: 10 }, { createdAtMs: 2 }),
    ];
    expect(chosen("MEMORY_PRESSURE", twins)).toBe("young");
  });

  test("what is frozen still holds memory, what is not sampled is not known to", () => {
    const paused = { state: "PAUSED", wanted: "PAUSED" } as const;
    expect(chosen("MEMORY_PRESSURE", [candidateOf("paused", { usedMib: 1 }, paused)])).toBe("paused");
    expect(chosen("MEMORY_PRESSURE", [candidateOf("unknown", {})])).toBeUndefined();
  });
});

describe("under disk and inode pressure", () => {
  test.each(["DISK_PRESSURE", "INODE_PRESSURE"] as const)("%s: who has written the most goes", (cause) => {
    const candidates = [
      candidateOf("reader", { usedMib: 900, writtenBytes: 10 }),
      candidateOf("writer", { usedMib: 1, writtenBytes: 1_000 }),
    ];
    expect(chosen(cause, candidates)).toBe("writer");
  });

  test("where nothing is known of what was written, the youngest goes", () => {
    const candidates = [
      candidateOf("old", {}, { createdAtMs: 1 }),
      candidateOf("young", {}, { createdAtMs: 2 }),
    ];
    expect(chosen("DISK_PRESSURE", candidates)).toBe("young");
  });

  test("what is frozen writes nothing more", () => {
    const paused = { state: "PAUSED", wanted: "PAUSED" } as const;
    expect(chosen("DISK_PRESSURE", [candidateOf("paused", { writtenBytes: 9 }, paused)])).toBeUndefined();
  });
});

const anyCandidate: fc.Arbitrary<Candidate> = fc
  .record({
    id: fc.stringMatching(/^[a-z]{1,6}$/),
    priority: fc.integer({ min: -1_000, max: 1_000 }),
    usedMib: fc.option(fc.integer({ min: 0, max: 1_000 }), { nil: undefined }),
    requestMib: fc.integer({ min: 1, max: 1_000 }),
    writtenBytes: fc.nat(),
    state: fc.constantFrom(...states),
    wanted: fc.constantFrom("RUNNING", "PAUSED", "STOPPED", "DELETED"),
    createdAtMs: fc.nat(),
  })
  .map(({ id, state, wanted, createdAtMs, usedMib, ...use }) =>
    candidateOf(
      id,
      { ...use, ...(usedMib === undefined ? {} : { usedMib }) },
      { state, wanted, createdAtMs },
    ),
  );
const anyCause = fc.constantFrom<EvictionCause>("MEMORY_PRESSURE", "DISK_PRESSURE", "INODE_PRESSURE");
const someCandidates = fc.uniqueArray(anyCandidate, { selector: ({ record }) => record.id, maxLength: 20 });

test("whoever is chosen has processes, and is not on its way out already", () => {
  fc.assert(
    fc.property(anyCause, someCandidates, (cause, candidates) => {
      const victim = chooseVictim(cause, candidates);
      if (victim === undefined) return;
      expect(["RUNNING", "RESUMING", "PAUSING", "PAUSED"]).toContain(victim.record.state);
      expect(["RUNNING", "PAUSED"]).toContain(victim.record.wanted);
      if (cause === "MEMORY_PRESSURE") expect(victim.workingSetBytes).toBeGreaterThan(0);
    }),
  );
});

test("nobody who could go has a lower priority, or the same and a greater overuse", () => {
  fc.assert(
    fc.property(someCandidates, (candidates) => {
      const victim = chooseVictim("MEMORY_PRESSURE", candidates);
      for (const other of candidates) {
        // it could have gone, had it been alone
        if (victim === undefined || chooseVictim("MEMORY_PRESSURE", [other]) === undefined) continue;
        expect(other.record.spec.priority).toBeGreaterThanOrEqual(victim.record.spec.priority);
        if (other.record.spec.priority > victim.record.spec.priority) continue;
        expect(overuse(other)).toBeLessThanOrEqual(overuse(victim));
      }
    }),
  );
});

test("the choice does not depend on the order, and is made whenever one could go", () => {
  fc.assert(
    fc.property(anyCause, someCandidates, (cause, candidates) => {
      const victim = chooseVictim(cause, candidates);
      expect(chooseVictim(cause, candidates.toReversed())).toBe(victim);
      const could = candidates.some((one) => chooseVictim(cause, [one]) !== undefined);
      expect(victim !== undefined).toBe(could);
    }),
  );
});

test("the message carries the condition, its figures and those of the sandbox", () => {
  const victim = candidateOf("a", { priority: 3, usedMib: 64, requestMib: 32, writtenBytes: 7 });
  expect(evictionMessage("MEMORY_PRESSURE", "80MiB of memory are available", victim)).toBe(
    "evicted under MEMORY_PRESSURE: 80MiB of memory are available; with priority 3, it used 67108864 bytes of memory and had requested 33554432",
  );
  expect(evictionMessage("DISK_PRESSURE", "9 % of /var are free", victim)).toBe(
    "evicted under DISK_PRESSURE: 9 % of /var are free; with priority 3, it had written 7 bytes",
  );
});
