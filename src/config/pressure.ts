// The keys by which a host says when it is short of something, and what it does about it and about what piles up.

import { duration, flag, integer, ratio, section, size } from "./field.ts";
import { resourceBounds } from "./resource.ts";

const percent = (value: number, meaning: string) => ratio({ min: 0, max: 100, default: value, meaning });

export const pressureSection = () =>
  section("When the host is short of something: it takes no new sandboxes, and ends some that run.", {
    memory_available: size({
      min: 0,
      max: resourceBounds.memory_bytes.max,
      default: 100 * 1024 * 1024,
      meaning: "MEMORY_PRESSURE begins when less memory is available. 0B: never.",
    }),
    disk_available_percent: percent(
      10,
      "DISK_PRESSURE begins when less is free on the disk of the state or of the engine's data. 0: never.",
    ),
    inodes_available_percent: percent(5, "INODE_PRESSURE begins when fewer inodes are free there. 0: never."),
    pids_available_percent: percent(5, "PID_PRESSURE begins when fewer process ids are free. 0: never."),
    stalled_percent: percent(
      60,
      "STALLED is told when all tasks wait for memory or disks for more of the time. 100: never.",
    ),
    stalled_cpu_percent: percent(
      90,
      "STALLED is told when some task waits for a CPU for more of the time. 100: never.",
    ),
    samples: integer({
      min: 1,
      max: 1000,
      default: 3,
      meaning: "A condition begins or ends when so many samples in a row say so.",
    }),
    recovery: ratio({
      min: 1,
      max: 10,
      default: 1.5,
      meaning: "A condition ends only when this many times its threshold is free again.",
    }),
    minimum_time: duration({
      min: "0s",
      max: "1h",
      default: "1m",
      meaning: "And not before it has held for so long.",
    }),
    evict: flag({
      default: true,
      meaning: "Whether sandboxes are stopped, one at a time, while memory, disk or inodes are short.",
    }),
    eviction_pause: duration({
      min: "1s",
      max: "10m",
      default: "10s",
      meaning: "From the end of one that was evicted to the choice of the next.",
    }),
  });

export const housekeepingSection = () =>
  section("What is removed once nobody needs it.", {
    period: duration({ min: "1s", max: "1d", default: "1m", meaning: "Time between two rounds." }),
    keep_stopped_age: duration({
      min: "1s",
      max: "365d",
      default: "24h",
      meaning: "A sandbox that stopped or failed is deleted after so long.",
    }),
    keep_stopped_count: integer({
      min: 0,
      max: 100_000,
      default: 200,
      meaning: "Beyond so many of them the oldest are deleted sooner.",
    }),
    collect_images: flag({
      default: false,
      meaning: "Whether unused images are removed when the engine's disk is full.",
    }),
    images_high_percent: percent(85, "Use of that disk at which removing begins."),
    images_low_percent: percent(80, "Use of that disk at which it ends."),
    images_minimum_age: duration({
      min: "0s",
      max: "365d",
      default: "1h",
      meaning: "An image is kept for so long after it was first seen, and after it was last used.",
    }),
    dry_run: flag({ default: false, meaning: "Only logs what would be removed." }),
  });
