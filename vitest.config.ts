// The kinds of test, run one kind after the other: unit tests stay inside the process, the simulation plays the life of
// sandboxes in virtual time, integration and fault tests have a real engine (tools/test.mjs starts it and names its socket
// in SANDBOXD_TEST_ENGINE), host tests a whole machine in an emulator (its disks are named by SANDBOXD_TEST_GUEST_IMAGE).
import { defineConfig } from "vitest/config";

// They wait for the engine as much as for a core; the engine is one, and what a test starts has a name of its own.
const withEngine = { hookTimeout: 60_000, globalSetup: ["test/harness/build.ts"] };

/** They wait for most of their time: more of them at once take no longer. */
const waiting = ["drain", "health", "housekeeping", "idle", "metering", "recovery", "uplink-slow"].map(
  (name) => `test/integration/${name}.test.ts`,
);

/** Faults of the engine itself, and a load that it shows: everything that uses it feels them, so they are alone. */
const engineFaults = [
  ...[
    "crowd",
    "engine",
    "engine-conditions",
    "engine-frozen",
    "engine-gone",
    "engine-harness",
    "engine-limits",
  ],
  "processes",
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
          // They wait for syncs and timers, and none leaves anything behind in its process, which a file each would cost more than
          // most of their tests.
          maxWorkers: 3,
          isolate: false,
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
          isolate: false,
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
          // Faults of one daemon, or between it and the engine: nobody beside it feels them.
          include: ["test/fault/**/*.test.ts"],
          exclude: engineFaults,
          testTimeout: 180_000,
          maxWorkers: 3,
          sequence: { groupOrder: 4 },
          ...withEngine,
        },
      },
      {
        test: {
          name: "fault",
          include: engineFaults,
          testTimeout: 180_000,
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
