// Many of the same at once, but not all of them.

/** Calls `run` for each item, at most `width` at a time. Rejects with the first failure. */
export async function parallel<T>(
  items: readonly T[],
  width: number,
  run: (item: T) => Promise<unknown>,
): Promise<void> {
  const waiting = items.values();
  const worker = async () => {
    for (const item of waiting) await run(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
