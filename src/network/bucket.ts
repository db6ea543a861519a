// Bounds of bandwidth in the words of tc-tbf(8): what to ask for, and what the kernel says that it holds.

export interface TokenBucket {
  /** Bytes that may pass at once after a pause. */
  readonly burst: number;
  /** Bytes that pass or wait; what comes beyond is dropped. */
  readonly limit: number;
}

/**
 * A hundredth of a second's worth passes at once, the kernel's coarsest tick, but at least some packets of the largest common size;
 * a tenth of a second's worth waits, so that senders feel the bound by delay before they feel it by loss, but no more than the kernel
 * should hold in memory for a sandbox.
 */
export function bucketOf(bytesPerSecond: number): TokenBucket {
  const burst = Math.max(16 * 1_024, Math.ceil(bytesPerSecond / 100));
  const waiting = Math.min(Math.max(32 * 1_024, Math.ceil(bytesPerSecond / 10)), 16 * 1_024 ** 2);
  return { burst, limit: burst + waiting };
}

/**
 * Commands for tc, the last of which shows what is there. What is there is removed first: packets that wait in a bucket which is made
 * too small for them wait for ever, and all others behind them.
 */
export function boundCommands(device: string, bytesPerSecond: number | undefined): string {
  const replace = (queue: string) => `qdisc replace dev ${device} root ${queue}\n`;
  const bound = bytesPerSecond === undefined ? "" : replace(tokenBucket(bytesPerSecond));
  return `${replace("noqueue")}${bound}${showCommand(device)}`;
}

export function showCommand(device: string): string {
  return `qdisc show dev ${device}\n`;
}

function tokenBucket(bytesPerSecond: number): string {
  const { burst, limit } = bucketOf(bytesPerSecond);
  // tc's "bps" are bytes per second
  return `tbf rate ${bytesPerSecond}bps burst ${burst} limit ${limit}`;
}

/** Bytes per second that tc prints of the one device that it shows; undefined if it is not bounded. @throws SyntaxError for no JSON. */
export function rateIn(printed: string): number | undefined {
  const queues = JSON.parse(printed) as readonly {
    readonly kind: string;
    readonly root?: boolean;
    readonly options?: { readonly rate?: number };
  }[];
  return queues.find(({ kind, root }) => kind === "tbf" && root === true)?.options?.rate;
}
