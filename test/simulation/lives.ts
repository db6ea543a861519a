// The daemon's process: it starts on what the last life left, is killed anywhere, or told to stop, and starts again.

import { SandboxdError } from "../../src/errors.ts";
import type { Log } from "../../src/observe/log.ts";
import { containerName } from "../../src/sandbox/plan.ts";
import { type Daemon, startDaemon } from "./daemon.ts";
import type { Ledger } from "./ledger.ts";
import type { Life, ModelDisk } from "./model-disk.ts";
import type { ModelEngine } from "./model-engine.ts";
import { hostId } from "./model-host.ts";
import { type ArmedFault, createModelRuntime } from "./model-runtime.ts";
import type { Random } from "./random.ts";
import { settled, type VirtualTime } from "./virtual-time.ts";

/** The next time that a point is reached, but for so many before, the daemon is killed there. */
export interface Trap {
  readonly point: Parameters<Life["reached"]>[0];
  skip: number;
  readonly downMs: number;
}

export interface Lives {
  /** Serves, or does not. */
  daemon(): Daemon | undefined;
  /** Tells later whether that life is still the present one. */
  present(): () => boolean;
  trap: Trap | undefined;
  /** While false, nothing starts it. */
  mayRise: boolean;
  rise(): void;
  die(why: string, downMs: number): void;
  /** Lets it close in order; then it is down for so long. */
  close(downMs: number): Promise<void>;
}

export interface LivesOptions {
  readonly time: VirtualTime;
  readonly random: Random;
  readonly engine: ModelEngine;
  readonly disk: ModelDisk;
  readonly ledger: Ledger;
  readonly armed: ArmedFault[];
  readonly streams: Set<() => void>;
  readonly boot: () => { readonly id: string; readonly sinceMs: number };
  /** Since when sandboxes are idle, and which are ill. */
  readonly idle: Map<string, number>;
  readonly ill: ReadonlySet<string>;
  readonly say: (who: string, words: () => string) => void;
  readonly log: Log;
  readonly violated: (message: string) => void;
  readonly onUnhandled: (error: unknown) => void;
  readonly hangUp: () => void;
}

const drainMs = 10_000;

export function createLives(options: LivesOptions): Lives {
  const { time, random, engine, disk, ledger, idle, ill, say, violated } = options;
  let life = { alive: false };
  let daemon: Daemon | undefined;

  function lifeOf(mine: { readonly alive: boolean }): Life {
    return {
      isAlive: () => mine.alive,
      reached(point) {
        const { trap } = lives;
        if (trap?.point !== point || !mine.alive || trap.skip-- > 0) return;
        lives.trap = undefined;
        lives.die(`killed ${point}`, trap.downMs);
      },
    };
  }

  function runtimeOf(mine: Life) {
    return createModelRuntime({
      ...options,
      life: mine,
      hooks: {
        asked(asked) {
          say("asks", () => `${asked.verb} ${asked.container?.id ?? ""}`);
          ledger.asked(asked);
        },
        answered(asked, error) {
          if (error !== undefined) say("answer", () => `${asked.verb}: ${error.reason} ${error.message}`);
          ledger.answered(asked, error);
        },
        delivered(event) {
          say("event", () => `${event.action} ${event.containerId}`);
          ledger.delivered(event);
        },
        die() {
          if (mine.isAlive()) lives.die("killed", random.between(1, 3_000));
        },
      },
    });
  }

  const lives: Lives = {
    daemon: () => daemon,
    present() {
      const mine = life;
      return () => mine.alive;
    },
    trap: undefined,
    mayRise: true,
    rise() {
      if (life.alive || !lives.mayRise) return;
      const mine = { alive: true };
      life = mine;
      time.revive();
      idle.clear();
      say("daemon", () => "starts");
      const process = lifeOf(mine);
      startDaemon({
        medium: disk.medium(process),
        runtime: runtimeOf(process),
        bootId: options.boot().id,
        monotonicMs: () => Math.floor(time.nowMs() - options.boot().sinceMs),
        vitals: {
          idleSinceMs: (id) => idle.get(id),
          health(id) {
            if (ledger.books.record(id)?.spec.healthCheck === undefined) return undefined;
            return ill.has(id)
              ? { state: "UNHEALTHY", failures: 3, message: "no answer" }
              : { state: "HEALTHY", failures: 0, message: "answers" };
          },
        },
        concerned: () => [...idle.keys(), ...ill],
        onClock(clock) {
          if (mine.alive) ledger.clock = clock;
        },
        oomKills: (id) => engine.byName(containerName(hostId, id))?.oomKills ?? 0,
        log: options.log,
      }).then(
        (started) => {
          if (!mine.alive) return;
          daemon = started;
          started.store.events.subscribe(() => mine.alive && ledger.told(started.store.events.newest()));
          say("daemon", () => "serves");
        },
        (error: unknown) => {
          if (!mine.alive) return;
          if (!(error instanceof SandboxdError && error.reason === "STATE_DISK_FULL")) {
            options.onUnhandled(error);
          }
          lives.die("cannot start", 2_000);
        },
      );
    },
    die(why, downMs) {
      if (!life.alive) return;
      life.alive = false;
      daemon = undefined;
      time.killDaemon();
      options.streams.clear();
      ledger.died();
      say("daemon", () => why);
      time.after(downMs, lives.rise);
    },
    async close(downMs) {
      const closing = daemon;
      const mine = life;
      if (closing === undefined) return;
      daemon = undefined;
      say("daemon", () => "is told to stop");
      options.hangUp();
      await settled();
      let isClosed = false;
      time.after(drainMs, () => {
        if (!isClosed && mine.alive) violated("I9: the daemon does not close");
      });
      await closing.close();
      isClosed = true;
      if (!mine.alive) return;
      if (time.pending() > 0) violated(`${time.pending()} timers are left after the daemon closed`);
      lives.die("is closed", downMs);
    },
  };
  return lives;
}
