// What the tests of the host share.

import { createLog, type Log } from "../../../src/observe/log.ts";

/** Says nothing. */
export const silentLog: Log = createLog({ level: "fatal", destination: { write: () => undefined } });
