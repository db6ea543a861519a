// How often the garbage collector looks at everything: often while the daemon is quiet, so that it stays small, and seldom while much is
// sent or received, since each piece of a transfer is garbage a moment later, and collecting at every few of them would be most of the work.

import { setFlagsFromString } from "node:v8";

/** Percent by which the heap grows between two full collections; the first as in bin/sandboxd. */
const quietPercent = 15;
const busyPercent = 80;

/** More in one period is a transfer. */
const transferBytes = 4 * 1024 * 1024;
const periodMs = 1_000;

let periodBytes = 0;
let timer: NodeJS.Timeout | undefined;
let isBusy = false;

/** Bytes of a transfer went through. Of the whole process, as the collector is. */
export function transferred(bytes: number): void {
  periodBytes += bytes;
  timer ??= setInterval(look, periodMs).unref();
  if (!isBusy && periodBytes > transferBytes) setBusy(true);
}

function look(): void {
  if (periodBytes <= transferBytes && isBusy) setBusy(false);
  if (periodBytes === 0) {
    clearInterval(timer);
    timer = undefined;
  }
  periodBytes = 0;
}

function setBusy(wanted: boolean): void {
  isBusy = wanted;
  setFlagsFromString(`--heap-growing-percent=${wanted ? busyPercent : quietPercent}`);
}
