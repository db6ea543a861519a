// What of a process's output is acknowledged to its keeper, which drops it then: not the newest part of what was taken, so that a daemon
// that was killed finds that again.

/** Least of what the keeper holds: several events, so that one alone does not fill it. */
const leastKeptBytes = 262_144;
const mostStepBytes = 32_768;

/** What the keeper is to hold of the output: what lags, and as much on its way. */
export const keptBytes = (retainedBytes: number): number => Math.max(leastKeptBytes, retainedBytes);

export interface Acknowledgement {
  /** An event came; `outputBytes` with it. */
  received(sequence: number, outputBytes: number): void;
  /** What is to be acknowledged now, if anything is. `takenSequence`: whoever is waited for has taken all up to it. */
  upTo(takenSequence: number, outputBytes: number): number | undefined;
}

export function createAcknowledgement(retainedBytes: number): Acknowledgement {
  const lagBytes = keptBytes(retainedBytes) / 2;
  const stepBytes = Math.min(mostStepBytes, lagBytes / 8);
  /** Ends of events, a step apart, that are not acknowledged. */
  const marks: { readonly sequence: number; readonly outputBytes: number }[] = [];
  let markedBytes = 0;
  return {
    received(sequence, outputBytes) {
      if (outputBytes - markedBytes < stepBytes) return;
      markedBytes = outputBytes;
      marks.push({ sequence, outputBytes });
    },
    upTo(takenSequence, outputBytes) {
      let sequence: number | undefined;
      for (;;) {
        const [mark] = marks;
        if (mark === undefined || mark.sequence > takenSequence || mark.outputBytes > outputBytes - lagBytes)
          return sequence;
        sequence = mark.sequence;
        marks.shift();
      }
    },
  };
}
