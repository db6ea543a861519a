// What a sandbox may use, as the configuration bounds it: the bounds and defaults of the contract's Resources, in
// one table for the sections [defaults], [limits.min], [limits.max] and the templates.

import { type Field, integer, section, size } from "./field.ts";

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;
const gibibyte = 1024 * mebibyte;
export const tebibyte = 1024 * gibibyte;

/** Kept equal to `sandboxd.v1.Resources`; a test compares them. */
export const resourceBounds = {
  cpu_millis: { min: 10, max: 1_024_000, default: 1000, meaning: "CPU limit. Millicores: 1000 is one CPU." },
  memory_bytes: {
    min: 6 * mebibyte,
    max: 16 * tebibyte,
    default: 512 * mebibyte,
    meaning: "Memory limit, of which page cache, kernel memory, tmpfs and shm are part.",
  },
  pids: { min: 4, max: 4_194_304, default: 256, meaning: "Most processes and threads at once." },
  open_files: { min: 64, max: 1_048_576, default: 4096, meaning: "Most open file descriptors of a process." },
  tmpfs_bytes: {
    min: 64 * kibibyte,
    max: 16 * tebibyte,
    default: 64 * mebibyte,
    meaning: "Size of /tmp; counts against memory as it is filled. Never more than the memory limit.",
  },
  tmpfs_inodes: { min: 16, max: 16_777_216, default: 16_384, meaning: "Most files and directories in /tmp." },
  shm_bytes: {
    min: 64 * kibibyte,
    max: 16 * tebibyte,
    default: 16 * mebibyte,
    meaning: "Size of /dev/shm; counts against memory as it is filled. Never more than the memory limit.",
  },
  log_bytes: {
    min: mebibyte,
    max: gibibyte,
    default: 10 * mebibyte,
    meaning: "Most log bytes kept of a sandbox; the oldest are dropped first.",
  },
} as const;

/** Kept equal to `sandboxd.v1.BlockIo`; a test compares them. */
export const blockIoBounds = {
  read_bytes_per_second: { min: 4 * kibibyte, max: tebibyte, meaning: "Bytes read per second." },
  write_bytes_per_second: { min: 4 * kibibyte, max: tebibyte, meaning: "Bytes written per second." },
  read_operations_per_second: { min: 1, max: 10_000_000, meaning: "Reads per second." },
  write_operations_per_second: { min: 1, max: 10_000_000, meaning: "Writes per second." },
} as const;

export type ResourceKey = keyof typeof resourceBounds;

/** The keys of resources, each with the contract's default, least or greatest value as its own default. */
export function resourceFields(
  from: "default" | "min" | "max",
): Readonly<Record<ResourceKey, Field<number>>> {
  return mapValues(resourceBounds, (key, bounds) => {
    const options = { min: bounds.min, max: bounds.max, default: bounds[from], meaning: bounds.meaning };
    return isSize(key) ? size(options) : integer(options);
  });
}

/** The resources of a template: all may be left out. */
export function templateResources() {
  return section("What a sandbox of the template may use. Keys left out take the value of [defaults].", {
    ...mapValues(resourceBounds, optional),
    cpu_request_millis: integer({
      min: 1,
      max: resourceBounds.cpu_millis.max,
      meaning:
        "CPU that admission sets aside, and the weight under contention. Millicores. Left out: cpu_millis divided by cpu_overcommit.",
    }),
    memory_request_bytes: size({
      min: 1,
      max: resourceBounds.memory_bytes.max,
      meaning: "Memory that admission sets aside. Left out: memory_bytes divided by memory_overcommit.",
    }),
    block_io: section(
      "Throttles on the device that holds the engine's data. Left out: unthrottled.",
      mapValues(blockIoBounds, optional),
    ),
  });
}

export function optional(
  key: string,
  bounds: { readonly min: number; readonly max: number; readonly meaning: string },
): Field<number | undefined> {
  const options = { min: bounds.min, max: bounds.max, meaning: bounds.meaning };
  return isSize(key) ? size(options) : integer(options);
}

const isSize = (key: string): boolean => /(^|_)bytes(_|$)/.test(key);

export function mapValues<K extends string, V, R>(
  values: Readonly<Record<K, V>>,
  change: (key: string, value: V) => R,
): Readonly<Record<K, R>> {
  // Object.entries forgets which keys there are; none is added or left out here
  return Object.fromEntries(
    Object.entries<V>(values).map(([key, value]) => [key, change(key, value)]),
  ) as Readonly<Record<K, R>>;
}
