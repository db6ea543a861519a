// Hears from the kernel when rules change: whether somebody else touches the tables, and that a transaction of ours is done, which is
// sooner than its program ends.

import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { spawned } from "../../spawned.ts";
import { spawnLasting } from "../program.ts";
import { signalChain } from "./tables.ts";

export interface Monitor {
  /** Resolves once the rule that tells a token is in the kernel. Never does while nothing is heard. */
  heard(token: string): Promise<void>;
  /** It is no longer waited for. */
  forget(token: string): void;
  isUp(): boolean;
  close(): void;
}

export interface MonitorOptions {
  readonly table: string;
  /** What starts a program where the rules are. */
  readonly within: readonly string[];
  /** A rule of the tables came or went, or may have without being heard. */
  readonly onChange: () => void;
  readonly log: Log;
}

const leastDelayMs = 200;
const mostDelayMs = 30_000;
/** One that lived so long did not fail at once. */
const livedMs = 10_000;
/** Lines are rules; whatever is longer is none that is waited for. */
const mostLine = 65_536;

export function createMonitor({ table, within, onChange, log }: MonitorOptions): Monitor {
  const waiting = new Map<string, () => void>();
  let child: ReturnType<typeof spawnLasting> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let delayMs = leastDelayMs;
  let isUp = false;
  let isClosed = false;

  const [ours, signals] = [` ${table} `, ` ${table} ${signalChain} `];

  function hear(line: string): void {
    if (line.includes(signals)) {
      const [, token = ""] = /comment "(\w+)"/.exec(line) ?? [];
      waiting.get(token)?.();
      waiting.delete(token);
    } else if (line.includes(ours) || line.startsWith("# ERROR")) {
      // which says that something was missed
      onChange();
    }
  }

  function start(): void {
    const startedAt = performance.now();
    // sets have more events than are of use, and nft 1.0.6 crashes over some of them
    const started = spawnLasting([...within, "nft", "monitor", "rules"]);
    child = started;
    const onEnd = (why: string) => {
      if (child !== started) return;
      child = undefined;
      isUp = false;
      if (isClosed) return;
      if (performance.now() - startedAt > livedMs) delayMs = leastDelayMs;
      log.debug({ err: why, delayMs }, "changes of the firewall are not heard");
      timer = setTimeout(() => {
        start();
        onChange();
      }, delayMs);
      delayMs = Math.min(mostDelayMs, delayMs * 2);
    };
    spawned(started).then(listen, (error: unknown) => onEnd(messageOf(error)));
    started.once("close", (code, signal) => onEnd(`nft monitor ended with ${signal ?? code}`));
  }

  function listen({ stdout }: ReturnType<typeof spawnLasting>): void {
    isUp = true;
    let rest = "";
    stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = (lines.pop() ?? "").slice(0, mostLine);
      for (const line of lines) hear(line);
    });
  }

  start();
  return {
    heard(token) {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.set(token, resolve);
      return promise;
    },
    forget: (token) => void waiting.delete(token),
    isUp: () => isUp,
    close() {
      isClosed = true;
      clearTimeout(timer);
      child?.kill("SIGKILL");
    },
  };
}
