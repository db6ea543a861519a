// What the service manager is told of the daemon (sd_notify(3)): that it serves, reloads, stops, and still makes progress.

import { execFile } from "node:child_process";

export interface Notifier {
  /** It serves, or has done with reloading. @param status One line for `systemctl status`. */
  ready(status: string): Promise<void>;
  reloading(): Promise<void>;
  stopping(): Promise<void>;
  /**
   * From now on tells that all is well, twice in each period within which the service manager wants to hear it, as long
   * as `isWell` says so. Returns what ends it. Does nothing where no such period was set (WatchdogSec=).
   */
  watch(isWell: () => boolean): () => void;
}

export interface NotifierOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onError: (error: Error) => void;
  /** Default: systemd's own. */
  readonly program?: string;
}

/** A message that was not taken by then is lost. */
const timeoutMs = 10_000;

/**
 * A notifier of the service manager that started this process; one that does nothing where none did.
 *
 * The socket takes datagrams, which Node cannot send to a unix socket, so each message is a child process. As root it may
 * speak in its parent's name, so that `NotifyAccess=main` suffices. Measured: 2 to 4 ms of the daemon's CPU time for each; not by a waiting shell, in whose name it would speak.
 */
export function createNotifier({ env, onError, program = "systemd-notify" }: NotifierOptions): Notifier {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdogMicros } = env;
  let last: Promise<void> = Promise.resolve();

  const send = (assignments: readonly string[]) =>
    new Promise<void>((resolve) => {
      const options = { env: { PATH: env["PATH"], NOTIFY_SOCKET: socket }, timeout: timeoutMs };
      execFile(program, assignments, options, (error) => {
        if (error !== null) onError(error);
        resolve();
      });
    });
  // one after the other: the order of messages says what state it is in
  const tell = (...assignments: readonly string[]): Promise<void> => {
    if (socket === undefined) return Promise.resolve();
    // without memory for a process it is not even tried, which Node throws
    last = last.then(() => send(assignments)).catch(onError);
    return last;
  };

  return {
    ready: (status) => tell("READY=1", `STATUS=${status}`),
    reloading: () => tell("RELOADING=1", `MONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`),
    stopping: () => tell("STOPPING=1", "STATUS=stopping; sandboxes keep running"),
    watch(isWell) {
      if (socket === undefined || watchdogMicros === undefined) return () => {};
      const look = () => {
        if (isWell()) void tell("WATCHDOG=1");
      };
      const timer = setInterval(look, Number(watchdogMicros) / 1_000 / 2);
      return () => clearInterval(timer);
    },
  };
}
