import { expect, test } from "vitest";
import { explain, type Total } from "../../../src/sandbox/explain.ts";
import { recordOf } from "./fixture.ts";

const whose = 'the sandboxes of tenant "acme"';
const unbounded: Total = {
  whose,
  memoryBytes: 1_000,
  memoryLimitBytes: undefined,
  pids: 10,
  pidsLimit: undefined,
};

const around = (total: Partial<Total>) => ({
  nowMs: 0,
  hostProblems: [],
  totals: [{ ...unbounded, ...total }],
});

test.each<[string, Partial<Total>, readonly string[]]>([
  ["nothing is bounded", {}, []],
  ["there is room", { memoryLimitBytes: 1_200, pidsLimit: 12 }, []],
  ["memory is nearly used up", { memoryLimitBytes: 1_100 }, ["total_memory_short"]],
  ["processes are used up", { pidsLimit: 10 }, ["total_pids_short"]],
])("what it shares with others is told where that is short: %s", (_, total, kinds) => {
  const { findings, summary } = explain(recordOf(), around(total));
  expect(findings.map(({ kind }) => kind)).toEqual(kinds);
  expect(summary.includes(whose)).toBe(kinds.length > 0);
});

test("what others use says nothing of a sandbox that does not run", () => {
  const record = recordOf({ state: "STOPPED", wanted: "STOPPED" });
  const kinds = explain(record, around({ pidsLimit: 10 })).findings.map(({ kind }) => kind);
  expect(kinds).not.toContain("total_pids_short");
});

test("a workspace that is nearly full is told with figures, by bytes or by files", () => {
  const workspace = { id: "home", bytes: 10, limitBytes: 100, inodes: 5, limitInodes: 10 };
  const kinds = (change: Partial<typeof workspace>) =>
    explain(recordOf(), {
      nowMs: 0,
      hostProblems: [],
      workspace: { ...workspace, ...change },
    }).findings.filter(({ kind }) => kind === "workspace_full");
  expect(kinds({})).toEqual([]);
  expect(kinds({ bytes: 95 })[0]?.message).toContain('workspace "home" holds 95 of its 100 bytes');
  expect(kinds({ inodes: 10 })[0]?.message).toContain("10 of its 10 files");
  const { limitInodes: _, inodes: __, ...uncounted } = workspace;
  const around = {
    nowMs: 0,
    hostProblems: [],
    workspace: { ...uncounted, inodes: undefined, limitInodes: undefined },
  };
  expect(explain(recordOf(), around).findings.map(({ kind }) => kind)).not.toContain("workspace_full");
});

const noDenials = {
  ...{ policy: 0, host: 0, peer: 0, spoofed: 0, connections: 0, packets: 0, queriesRefused: 0, sni: 0 },
};

test.each([
  ["nothing was refused", { enforced: true, denials: noDenials }, []],
  [
    "something was refused",
    { enforced: true, denials: { ...noDenials, policy: 3, host: 1 } },
    ["network_denied"],
  ],
  ["its rules do not hold", { enforced: false, denials: noDenials }, ["network_cut_off"]],
])("what its network does not let through is told, with figures: %s", (_, network, kinds) => {
  const { findings } = explain(recordOf(), { nowMs: 0, hostProblems: [], network });
  expect(findings.map(({ kind }) => kind)).toEqual(kinds);
  for (const { message } of findings) {
    if (network.denials.policy > 0)
      expect(message).toMatch(/3 packets to addresses.*, 1 packets to this host/);
  }
});
