// Streams of messages with something done along the way. Hand-written iterators: they cost one promise a message.

/** Calls `each` on every item; what it throws ends the stream. */
export function checked<T>(source: AsyncIterable<T>, each: (item: T) => void): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        ...passedOn(iterator),
        async next() {
          const result = await iterator.next();
          if (result.done !== true) {
            each(result.value);
          }
          return result;
        },
      };
    },
  };
}

/** How a stream ended: by itself, with an error, or because its consumer let go of it. */
export type StreamEnd =
  | { readonly kind: "done" | "returned" }
  | { readonly kind: "failed"; readonly error: unknown };

/** Calls `seen` with the first of them, when it is taken. */
export function withFirst<T>(source: AsyncIterable<T>, seen: (first: T) => void): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      let isFirst = true;
      const next = async () => {
        const result = await iterator.next();
        if (isFirst && result.done !== true) seen(result.value);
        isFirst = false;
        return result;
      };
      return { next, ...passedOn(iterator) };
    },
  };
}

/** Calls `ended` once when the stream is over, and puts what `translate` makes of an error in its place. */
export function observed<T>(
  source: AsyncIterable<T>,
  ended: (end: StreamEnd) => void,
  translate: (error: unknown) => unknown = (error) => error,
): AsyncIterable<T> {
  let over = false;
  function end(how: StreamEnd): void {
    if (!over) {
      over = true;
      ended(how);
    }
  }
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      const { return: passReturn, throw: passThrow } = passedOn(iterator);
      return {
        next: () =>
          iterator.next().then(
            (result) => {
              if (result.done === true) {
                end({ kind: "done" });
              }
              return result;
            },
            (cause) => {
              const error = translate(cause);
              end({ kind: "failed", error });
              throw error;
            },
          ),
        return: (value) => {
          end({ kind: "returned" });
          return passReturn(value);
        },
        throw: (error) => {
          end({ kind: "failed", error });
          return passThrow(error);
        },
      };
    },
  };
}

/** The ending methods of an iterator that may lack them. */
export function passedOn<T>(iterator: AsyncIterator<T>): {
  return: (value?: unknown) => Promise<IteratorResult<T>>;
  throw: (error?: unknown) => Promise<IteratorResult<T>>;
} {
  return {
    return: async (value) => (await iterator.return?.(value)) ?? { done: true, value },
    throw: async (error) => {
      if (iterator.throw === undefined) {
        throw error;
      }
      return iterator.throw(error);
    },
  };
}
