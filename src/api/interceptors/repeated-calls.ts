// Calls that come by the hundred, as each keystroke is one: the first is told at once, and those that follow it together, so that
// they drive nothing else out of the log.

import type { DescMethod } from "@bufbuild/protobuf";
import { ProcessService } from "../../../gen/sandboxd/v1/process_service_pb.ts";

const often: readonly DescMethod[] = [ProcessService.method.sendInput];

/** Whether calls of this method are counted where they follow each other. */
export const isOften = (method: DescMethod): boolean => often.includes(method);

/** What is told of calls: their fields, with how many they were where they are told together. */
type Tell = (line: Readonly<Record<string, unknown>>) => void;

export interface RepeatedCalls {
  /** A call by somebody on something, which `key` names. Told now, or within a minute together with others of its key. */
  add(key: string, line: Readonly<Record<string, unknown>>): void;
  /** Tells what was not told yet. */
  close(): void;
}

const togetherMs = 60_000;
/** Followed at the same time; calls of others are told one by one. */
const mostKeys = 1_000;

interface Repeated {
  line: Readonly<Record<string, unknown>>;
  calls: number;
}

export function createRepeatedCalls(tell: Tell): RepeatedCalls {
  const followed = new Map<string, Repeated>();
  let timer: NodeJS.Timeout | undefined;

  function tellAll(): void {
    for (const [key, repeated] of followed) {
      const { line, calls } = repeated;
      // nobody does it any more: the next is a first again
      if (calls === 0) followed.delete(key);
      else tell({ ...line, calls });
      repeated.calls = 0;
    }
    if (followed.size === 0) stop();
  }

  function stop(): void {
    clearInterval(timer);
    timer = undefined;
  }

  return {
    add(key, line) {
      const known = followed.get(key);
      if (known !== undefined) {
        known.line = line;
        known.calls += 1;
        return;
      }
      tell(line);
      if (followed.size >= mostKeys) return;
      followed.set(key, { line, calls: 0 });
      timer ??= setInterval(tellAll, togetherMs).unref();
    },
    close() {
      tellAll();
      followed.clear();
      stop();
    },
  };
}
