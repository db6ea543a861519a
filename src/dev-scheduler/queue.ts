// Messages on their way down one session: written by many, read by one.

export interface Queue<T> {
  /** Ignored after the end. */
  push(item: T): void;
  /** Ends the reading after what is queued, with an error if there is one. The first end counts. */
  end(error?: Error): void;
  items(): AsyncGenerator<T, void>;
}

export function createQueue<T>(): Queue<T> {
  const queued: T[] = [];
  let ended: { readonly error?: Error } | undefined;
  let wake = Promise.withResolvers<void>();
  return {
    push(item) {
      if (ended !== undefined) return;
      queued.push(item);
      wake.resolve();
    },
    end(error) {
      ended ??= error === undefined ? {} : { error };
      wake.resolve();
    },
    async *items() {
      for (;;) {
        yield* queued.splice(0);
        if (queued.length > 0) continue;
        if (ended?.error !== undefined) throw ended.error;
        if (ended !== undefined) return;
        await wake.promise;
        wake = Promise.withResolvers<void>();
      }
    },
  };
}
