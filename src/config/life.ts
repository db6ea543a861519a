// The keys by which a template says how its sandboxes live and end. Bounds are the contract's.

import { choice, duration, integer, list, section, text } from "./field.ts";
import * as rule from "./rule.ts";

export const templateLifetime = () =>
  section("When its sandboxes end by themselves.", {
    ttl: duration({ min: "1s", max: "366d", meaning: "Time to the expiry, unless renewed. Left out: none." }),
    max_lifetime: duration({
      min: "1s",
      max: "366d",
      meaning: "The longest life, however often renewed. Left out: unbounded.",
    }),
    idle_timeout: duration({
      min: "5s",
      max: "366d",
      meaning: "The longest time without activity. Left out: idleness does not matter.",
    }),
    idle_cpu_millis: integer({
      min: 0,
      max: 100_000,
      meaning: "CPU use up to which a sandbox counts as idle. Millicores. Left out: 10.",
    }),
    on_expiry: choice({
      of: ["delete", "stop", "pause"],
      meaning: "What happens at the expiry. Left out: delete.",
    }),
    warning: duration({
      min: "0s",
      max: "1d",
      meaning: "How long before the expiry an event tells it. Left out: 1m, at most half of ttl.",
    }),
  });

export const templateRestart = () =>
  section("Whether the main command is started again after it ended.", {
    mode: choice({ of: ["never", "on-failure", "unless-stopped"], meaning: "When. Left out: never." }),
    delay: duration({
      min: "100ms",
      max: "10m",
      meaning: "Wait before the first restart; doubles with each in the window. Left out: 5s.",
    }),
    max_delay: duration({ min: "100ms", max: "1h", meaning: "The longest wait. Left out: 5m." }),
    max_attempts: integer({ min: 1, max: 1000, meaning: "Restarts within the window. Left out: 3." }),
    window: duration({ min: "1s", max: "1d", meaning: "Left out: 10m." }),
    reset_after: duration({
      min: "1s",
      max: "1d",
      meaning: "Having run well for so long, earlier restarts are forgotten. Left out: window.",
    }),
  });

export const templateHealthCheck = () =>
  section(
    "How it is found out whether a sandbox works. One of exec, tcp_port and http_port; none: not at all.",
    {
      exec: list(rule.argument, { max: 64, meaning: "A command inside; exit code 0 is success." }),
      tcp_port: integer({ min: 1, max: 65_535, meaning: "A TCP port inside that is listened on." }),
      http_port: integer({
        min: 1,
        max: 65_535,
        meaning: "A TCP port inside that answers a GET with 200 to 399.",
      }),
      http_path: text(rule.httpPath, { default: "/", meaning: "What is asked for there." }),
      interval: duration({ min: "1s", max: "1h", meaning: "Between two probes. Left out: 30s." }),
      timeout: duration({ min: "100ms", max: "5m", meaning: "The longest answer. Left out: 3s." }),
      start_period: duration({
        min: "0s",
        max: "1h",
        meaning: "After each start, failures do not count for so long. Left out: 5s.",
      }),
      retries: integer({
        min: 1,
        max: 100,
        meaning: "Failures in a row that make it unhealthy. Left out: 3.",
      }),
      on_unhealthy: choice({
        of: ["report", "restart", "stop"],
        meaning: "What is done then. Left out: report.",
      }),
    },
  );
