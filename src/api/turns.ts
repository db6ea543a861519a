// Calls that take some milliseconds of the daemon's only thread, one per turn of the event loop: between them it goes on with all else,
// as the first of fifty that came at once, which the engine could begin with already.

/** Resolves at once where nobody else was let through in this turn, and otherwise in a later one, in order. */
export function createTurns(): () => Promise<void> {
  const waiting: (() => void)[] = [];
  let isTaken = false;
  const next = () => {
    const first = waiting.shift();
    isTaken = first !== undefined;
    if (first === undefined) return;
    setImmediate(next);
    first();
  };
  return async () => {
    if (isTaken) return new Promise((resolve) => waiting.push(resolve));
    isTaken = true;
    setImmediate(next);
  };
}
