// What the daemon itself costs: memory, CPU, descriptors, and how late its event loop is.

import { readdirSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { MetricsRegistry } from "./metrics.ts";

const nanoseconds = 1e9;
const microseconds = 1e6;

/** Measures this process at each rendering. Close it to stop the measuring of the event loop. */
export function watchProcess({ metrics, onRender }: MetricsRegistry): { close(): void } {
  // one reading each 20 ms: cheap, and finer than any delay that matters
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  metrics.startTime.set({}, (Date.now() - process.uptime() * 1000) / 1000);
  let cpuCounted = 0;
  // what was there once is told as 0 when it is gone
  const resources = new Map<string, number>();
  onRender(() => {
    const { user, system } = process.cpuUsage();
    const cpuTotal = (user + system) / microseconds;
    metrics.cpuTime.add({}, cpuTotal - cpuCounted);
    cpuCounted = cpuTotal;
    metrics.residentMemory.set({}, process.memoryUsage.rss());
    metrics.openFiles.set({}, countOpenFiles());
    for (const [type, count] of countActiveResources(resources)) metrics.activeResources.set({ type }, count);
    metrics.eventLoopDelay.set({ quantile: "0.5" }, delay.percentile(50) / nanoseconds);
    metrics.eventLoopDelay.set({ quantile: "0.99" }, delay.percentile(99) / nanoseconds);
    metrics.eventLoopDelay.set({ quantile: "1" }, delay.max / nanoseconds);
    delay.reset();
  });
  return { close: () => void delay.disable() };
}

/** Without the one that reading the directory opens; NaN where there is no /proc, or no descriptor left to read it. */
function countOpenFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length - 1;
  } catch {
    return Number.NaN;
  }
}

/** Counts anew into `counts`, which keeps the types that it had. */
function countActiveResources(counts: Map<string, number>): Map<string, number> {
  for (const type of counts.keys()) counts.set(type, 0);
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1);
  return counts;
}
