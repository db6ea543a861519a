// One serial queue per sandbox, and a bounded number of starts over all of them.

export interface Queues {
  /** Runs `job` after every earlier one of the same id; its failure is its own. */
  run<T>(id: string, job: () => Promise<T>): Promise<T>;
  /** Resolves once everything accepted so far has ended. */
  idle(): Promise<void>;
}

export function createQueues(): Queues {
  const tails = new Map<string, Promise<unknown>>();
  return {
    run(id, job) {
      const before = tails.get(id) ?? Promise.resolve();
      const result = before.then(job, job);
      const tail = result
        .catch(() => undefined)
        .finally(() => {
          if (tails.get(id) === tail) tails.delete(id);
        });
      tails.set(id, tail);
      return result;
    },
    idle: async () => void (await Promise.all(tails.values())),
  };
}

export interface Slots {
  /** Waits for its turn, in order, and runs. `ahead`: before all who wait without it. */
  run<T>(job: () => Promise<T>, options?: { readonly ahead?: boolean }): Promise<T>;
}

/** At most `count` jobs at once. */
export function createSlots(count: number): Slots {
  const first: (() => void)[] = [];
  const others: (() => void)[] = [];
  let free = count;
  return {
    async run(job, { ahead = false } = {}) {
      if (free > 0) free--;
      else await new Promise<void>((resolve) => (ahead ? first : others).push(resolve));
      try {
        return await job();
      } finally {
        const next = first.shift() ?? others.shift();
        if (next === undefined) free++;
        else next();
      }
    },
  };
}
