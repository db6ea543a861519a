// Schedules: what callers, operators, the machine and chance do to a host, one step after the other. Plain values, so that
// one can be printed, cut down and run again.

import type { EventFault, Run } from "./model-engine.ts";
import { image, missingImage, type Wish } from "./model-host.ts";
import type { ArmedFault, CallFault, Verb } from "./model-runtime.ts";
import { createRandom, type Random } from "./random.ts";

export type Action =
  | { readonly do: "create"; readonly id: string; readonly wish: Wish; readonly wait: boolean }
  | { readonly do: "start" | "delete" | "pause" | "resume"; readonly id: string }
  | { readonly do: "stop"; readonly id: string; readonly graceMs?: number }
  | { readonly do: "renew"; readonly id: string; readonly ttlMs: number; readonly isStale: boolean }
  | { readonly do: "update"; readonly id: string; readonly memoryMiB?: number; readonly label?: string }
  | { readonly do: "cordon" | "open" }
  | { readonly do: "put-tenant"; readonly running?: number; readonly memoryMiB?: number }
  | { readonly do: "delete-tenant" }
  | { readonly do: "drain"; readonly policy: "STOP" | "WAIT"; readonly withinMs: number }
  | ({ readonly do: "fault" } & ArmedFault)
  | { readonly do: "events"; readonly fault: EventFault; readonly count: number }
  | { readonly do: "cut-events" }
  | { readonly do: "crash"; readonly downMs: number }
  | {
      readonly do: "crash-at";
      readonly point: "before-commit" | "after-commit" | "before-sync";
      readonly skip: number;
      readonly downMs: number;
    }
  | { readonly do: "restart-daemon"; readonly downMs: number }
  | { readonly do: "restart-engine"; readonly keepsSandboxes: boolean; readonly downMs: number }
  | { readonly do: "reboot"; readonly losesPower: boolean; readonly downMs: number }
  | { readonly do: "lose-state"; readonly downMs: number }
  | { readonly do: "wall"; readonly jumpMs: number }
  | { readonly do: "disk-full"; readonly forMs: number }
  | { readonly do: "disk-slow"; readonly forMs: number }
  | { readonly do: "limits-fail"; readonly forMs: number }
  | { readonly do: "image-gone"; readonly isPullable: boolean }
  | {
      readonly do: "external";
      readonly act: "rm" | "stop" | "kill" | "pause" | "unpause" | "start" | "rename" | "squat";
      readonly id: string;
    }
  | { readonly do: "idle"; readonly id: string; readonly isIdle: boolean }
  | { readonly do: "health"; readonly id: string; readonly isWell: boolean };

export interface Step {
  /** Time that passes before it. */
  readonly afterMs: number;
  /** Of a call: how long its caller waits for the answer. */
  readonly patienceMs: number;
  readonly action: Action;
}

export interface Schedule {
  readonly seed: number;
  readonly steps: readonly Step[];
}

/** The schedule of a seed. */
export function scheduleOf(seed: number): Schedule {
  const random = createRandom(seed);
  const ids = ["a", "b", "c", "d"].slice(0, random.between(1, 4));
  const isCalm = random.chance(0.15);
  const wishes = new Map(ids.map((id) => [id, wishOf(random)]));
  const steps = Array.from({ length: random.between(8, 26) }, (): readonly Step[] => {
    const action = actionOf(random, ids, wishes, isCalm);
    const step = {
      afterMs: random.chance(0.15) ? 0 : pauseOf(random),
      patienceMs: random.chance(0.2) ? random.between(1, 500) : 30_000,
      action,
    };
    const verbs = verbsOf[action.do];
    if (!isCalm && action.do in verbsOf && random.chance(0.08)) {
      // what is answered now must be there when the power is back
      const reboot: Action = { do: "reboot", losesPower: true, downMs: random.between(1_000, 5_000) };
      return [
        { ...step, action: { do: "disk-slow", forMs: 3_000 } },
        { ...step, afterMs: 1 },
        { ...step, afterMs: random.between(1, 1_000), action: reboot },
      ];
    }
    if (action.do === "update" && random.chance(0.4)) {
      // two at once for the same room
      const id = random.pick(ids);
      const wish = wishes.get(id) ?? wishOf(random);
      const rival: Action = random.chance(0.5)
        ? { do: "create", id, wish, wait: false }
        : { do: "start", id };
      return [step, { ...step, afterMs: random.between(1, 40), action: rival }];
    }
    if (isCalm || verbs === undefined || random.chance(0.7)) return [step];
    // a fault that meets just what this asks of the engine
    const fault: Action = {
      do: "fault",
      verb: random.pick(verbs),
      fault: random.pick(callFaults),
      skip: random.chance(0.7) ? 0 : 1,
    };
    return [
      { ...step, action: fault },
      { ...step, afterMs: 1 },
    ];
  });
  return { seed, steps: steps.flat() };
}

/** What the engine is asked for on account of a step. */
const verbsOf: Readonly<Partial<Record<Action["do"], readonly Verb[]>>> = {
  create: ["image", "create", "compare", "start", "verify"],
  start: ["start", "verify", "inspect", "image", "compare"],
  stop: ["stop", "inspect", "logs"],
  delete: ["remove", "inspect"],
  pause: ["pause", "inspect"],
  resume: ["resume", "verify", "inspect"],
  update: ["update", "inspect"],
  external: ["inspect", "verify", "list", "logs"],
  reboot: ["list", "inspect", "verify", "start"],
  health: ["stop", "start", "inspect"],
};

function pauseOf(random: Random): number {
  switch (random.weighted({ short: 5, some: 5, long: 3 })) {
    case "short":
      return random.between(1, 60);
    case "some":
      return random.between(60, 1_500);
    case "long":
      return random.between(1_500, 9_000);
  }
}

const callers = {
  create: 16,
  start: 8,
  stop: 7,
  delete: 5,
  pause: 6,
  resume: 6,
  renew: 6,
  update: 5,
  idle: 2,
  health: 3,
} as const;
const faults = {
  fault: 14,
  external: 9,
  events: 4,
  crash: 3,
  "crash-at": 5,
  "restart-daemon": 2,
  "restart-engine": 2,
  reboot: 2,
  "lose-state": 1,
  "cut-events": 1,
  wall: 2,
  "disk-full": 2,
  "disk-slow": 1,
  "limits-fail": 1,
  "image-gone": 1,
  cordon: 1,
  open: 2,
  drain: 1,
  "put-tenant": 2,
  "delete-tenant": 1,
} as const;

function actionOf(
  random: Random,
  ids: readonly string[],
  wishes: Map<string, Wish>,
  isCalm: boolean,
): Action {
  const id = random.pick(ids);
  const kind = random.weighted<Action["do"]>(isCalm ? callers : { ...callers, ...faults });
  switch (kind) {
    case "create": {
      // now and then another request for the same id
      if (random.chance(0.15)) wishes.set(id, wishOf(random));
      const wish = wishes.get(id) ?? wishOf(random);
      return { do: kind, id, wish, wait: random.chance(0.6) };
    }
    case "start":
    case "delete":
    case "pause":
    case "resume":
      return { do: kind, id };
    case "stop":
      return { do: kind, id, ...(random.chance(0.3) ? { graceMs: random.between(0, 2_000) } : {}) };
    case "renew":
      return { do: kind, id, ttlMs: random.between(1_000, 15_000), isStale: random.chance(0.2) };
    case "update":
      return random.chance(0.7)
        ? { do: kind, id, memoryMiB: random.pick([32, 64, 128, 300]) }
        : { do: kind, id, label: String(random.between(0, 9)) };
    case "drain":
      return { do: kind, policy: random.pick(["STOP", "WAIT"]), withinMs: random.between(0, 10_000) };
    case "fault":
      return {
        do: kind,
        verb: random.pick(verbs),
        fault: random.pick(callFaults),
        skip: random.between(0, 2),
      };
    case "events":
      return {
        do: kind,
        fault: random.pick(["lose", "duplicate", "delay", "reorder"]),
        count: random.between(1, 4),
      };
    case "crash":
      return { do: kind, downMs: downOf(random) };
    case "crash-at":
      return {
        do: kind,
        point: random.pick(["before-commit", "after-commit", "before-sync"]),
        skip: random.between(0, 4),
        downMs: downOf(random),
      };
    case "restart-daemon":
    case "lose-state":
      return { do: kind, downMs: downOf(random) };
    case "restart-engine":
      return { do: kind, keepsSandboxes: random.chance(0.5), downMs: random.between(50, 6_000) };
    case "reboot":
      return { do: kind, losesPower: random.chance(0.7), downMs: random.between(1_000, 20_000) };
    case "wall":
      return { do: kind, jumpMs: random.pick([-3_600_000, -60_000, 60_000, 3_600_000]) };
    case "disk-full":
    case "disk-slow":
    case "limits-fail":
      return { do: kind, forMs: random.between(100, 8_000) };
    case "image-gone":
      return { do: kind, isPullable: random.chance(0.7) };
    case "external":
      return {
        do: kind,
        act: random.pick(["rm", "stop", "kill", "pause", "unpause", "start", "rename", "squat"]),
        id,
      };
    case "idle":
      return { do: kind, id, isIdle: random.chance(0.7) };
    case "health":
      return { do: kind, id, isWell: random.chance(0.4) };
    case "put-tenant":
      return {
        do: kind,
        ...(random.chance(0.6) ? { running: random.between(0, 3) } : {}),
        ...(random.chance(0.4) ? { memoryMiB: random.pick([64, 200, 400]) } : {}),
      };
    case "cordon":
    case "open":
    case "cut-events":
    case "delete-tenant":
      return { do: kind };
  }
}

const downOf = (random: Random) =>
  random.chance(0.6) ? random.between(1, 800) : random.between(800, 15_000);

const verbs: readonly (Verb | "any")[] = [
  "any",
  "any",
  "inspect",
  "list",
  "image",
  "create",
  "create",
  "compare",
  "start",
  "start",
  "verify",
  "verify",
  "update",
  "pause",
  "resume",
  "stop",
  "stop",
  "remove",
  "remove",
  "logs",
];

const callFaults: readonly CallFault[] = [
  "error",
  "refused",
  "lost",
  "late",
  "hang",
  "slow",
  "die-before",
  "die-after",
  "die-late",
];

function wishOf(random: Random): Wish {
  const runs = Array.from({ length: random.between(1, 3) }, () => runOf(random));
  const warningMs = random.pick([0, 500, 2_000]);
  const ttlMs = random.chance(0.5) ? random.between(1_000, 20_000) : undefined;
  const maxLifetimeMs = random.chance(0.15) ? random.between(20_000, 40_000) : undefined;
  const delayMs = random.pick([100, 500, 2_000]);
  return {
    runs,
    memoryMiB: random.pick([64, 128, 128, 200]),
    image: random.chance(0.04) ? missingImage : image,
    stopGraceMs: random.pick([0, 1_000, 2_000, 3_000]),
    life: {
      lifetime: {
        ...(ttlMs === undefined ? {} : { ttlMs }),
        ...(maxLifetimeMs === undefined ? {} : { maxLifetimeMs }),
        ...(random.chance(0.2) ? { idleTimeoutMs: random.between(5_000, 9_000) } : {}),
        onExpiry: random.pick(["DELETE", "STOP", "PAUSE"]),
        warningMs,
      },
      restart: {
        mode: random.pick(["NEVER", "ON_FAILURE", "UNLESS_STOPPED"]),
        delayMs,
        maxDelayMs: delayMs * random.pick([1, 4, 16]),
        maxAttempts: random.between(1, 4),
        windowMs: random.between(5_000, 60_000),
        resetAfterMs: random.between(2_000, 30_000),
      },
      ...(random.chance(0.25)
        ? {
            healthCheck: {
              probe: { kind: "tcp", port: 80 },
              onUnhealthy: random.pick(["REPORT", "RESTART", "STOP"]),
            },
          }
        : {}),
    },
  };
}

function runOf(random: Random): Run {
  const end = random.weighted({ exit: 6, signal: 1, oom: 1 });
  const forMs = random.weighted({ endless: 5, short: 3, long: 3 });
  return {
    end,
    code: end === "exit" ? random.pick([0, 0, 1, 3]) : end === "oom" ? 9 : random.pick([9, 11]),
    endsInMs: random.pick([
      random.between(1, 900),
      random.between(1, 900),
      random.between(1, 900),
      -1,
      -9_000,
    ]),
    ...(forMs === "endless"
      ? {}
      : { forMs: forMs === "short" ? random.between(1, 800) : random.between(800, 15_000) }),
    ...(random.chance(0.05) ? { unusable: random.pick(["engine", "init"]) } : {}),
  };
}
