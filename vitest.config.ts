// The kinds of test, run one kind after the other: unit tests stay inside the process, the simulation plays the life of
// sandboxes in virtual time, integration and fault tests have a real engine (tools/test.mjs starts it and names its socket
// in SANDBOXD_TEST_ENGINE), host tests a whole machine in an emulator (its disks are named by SANDBOXD_TEST_GUEST_IMAGE).
import { defineConfig } from "vitest/config";

// Two files at a time on two cores; the engine is one, and what a test starts has a name of its own.
const withEngine = { hookTimeout: 60_000, globalSetup: ["test/harness/build.ts"] };

/** They wait for most of their time: more of them at once take no longer. */
const waiting = ["drain", "health", "housekeeping", "idle", "metering", "recovery", "uplink-slow"].map(
  (name) => `test/integration/${name}.test.ts`,
);

/** Faults of one daemon, or between it and the engine: nobody beside it feels them. */
const besides = [
  ...["disk-full", "engine-answers", "health", "kill-points", "networks", "operator", "workspaces"],
].map((name) => `test/fault/${name}.test.ts`);

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          // Against what hangs; a machine may be slow.
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: "simulation",
          include: ["test/simulation/**/*.test.ts"],
          testTimeout: 60_000,
          // It keeps two processors busy by itself.
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          exclude: waiting,
          testTimeout: 60_000,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
          ...withEngine,
        },
      },
      {
        test: {
          name: "integration-waiting",
          include: waiting,
          testTimeout: 60_000,
          maxWorkers: 4,
          sequence: { groupOrder: 3 },
          ...withEngine,
        },
      },
      {
        test: {
          name: "fault-beside",
          include: besides,
          testTimeout: 180_000,
          maxWorkers: 2,
          sequence: { groupOrder: 4 },
          ...withEngine,
        },
      },
      {
        test: {
          name: "fault",
          include: ["test/fault/**/*.test.ts"],
          exclude: besides,
          testTimeout: 180_000,
          // A fault in the engine is felt by everything that uses it.
          fileParallelism: false,
          sequence: { groupOrder: 5 },
          ...withEngine,
        },
      },
      {
        test: {
          name: "host",
          include: ["test/host/**/*.test.ts"],
          // In an emulator all takes ten times as long, and the first file boots the machine. What hangs ends by the
          // patience of what waits for it; these are for what doesn't.
          testTimeout: 400_000,
          hookTimeout: 600_000,
          fileParallelism: false,
          sequence: { groupOrder: 6 },
          setupFiles: ["test/harness/guest-time.ts"],
          globalSetup: ["test/harness/build.ts"],
        },
      },
    ],
  },
});
