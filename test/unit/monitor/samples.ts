// Makes samples for tests: idle unless told otherwise.
import type { SandboxSample } from "../../../src/monitor/sample.ts";

interface SampleParts {
  readonly cpu?: Partial<SandboxSample["cpu"]>;
  readonly memory?: Partial<SandboxSample["memory"]>;
  readonly pids?: Partial<SandboxSample["pids"]>;
  readonly blockIo?: SandboxSample["blockIo"];
  readonly network?: SandboxSample["network"];
}

export function sampleAt(
  monotonicMs: number,
  { cpu, memory, pids, ...rest }: SampleParts = {},
): SandboxSample {
  return {
    monotonicMs,
    wallMs: 1_700_000_000_000 + monotonicMs,
    cpu: {
      usageUsec: 0,
      userUsec: 0,
      systemUsec: 0,
      periods: 0,
      throttledPeriods: 0,
      throttledUsec: 0,
      ...cpu,
    },
    memory: {
      usageBytes: 0,
      workingSetBytes: 0,
      rssBytes: 0,
      cacheBytes: 0,
      oomEvents: 0,
      oomKills: 0,
      limitHits: 0,
      ...memory,
    },
    pids: { current: 1, refusedForks: 0, ...pids },
    ...rest,
  };
}
