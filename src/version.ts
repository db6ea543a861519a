// The daemon's version, in one place for logs, answers and metrics.

import manifest from "../package.json" with { type: "json" };

export const version: string = manifest.version;
