// Which directories share a file system. Asked without ever waiting for one on the event loop: a dead disk may never answer.

import { stat } from "node:fs/promises";

export interface FileSystems {
  /** Whether both are on one; false also as long as that is not known. */
  areOne(directory: string, other: string): boolean;
}

export function createFileSystems(): FileSystems {
  /** By directory; undefined until it has answered. */
  const devices = new Map<string, number | undefined>();

  function deviceOf(directory: string): number | undefined {
    if (!devices.has(directory)) {
      devices.set(directory, undefined);
      stat(directory).then(
        ({ dev }) => devices.set(directory, dev),
        // one that is not there yet is asked for again
        () => devices.delete(directory),
      );
    }
    return devices.get(directory);
  }

  return {
    areOne(directory, other) {
      const [one, two] = [deviceOf(directory), deviceOf(other)];
      return one !== undefined && one === two;
    },
  };
}
