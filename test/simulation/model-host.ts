// What the simulated host is: its capacity, its configuration, and the sandboxes that may be asked for.

import type { Config } from "../../src/config/config.ts";
import { formatConfigError } from "../../src/config/error.ts";
import { type LoadOptions, loadConfig } from "../../src/config/load.ts";
import type { Capacity } from "../../src/sandbox/admission.ts";
import { createLabelCodec, type Identity, type LabelCodec } from "../../src/sandbox/labels.ts";
import type { LifeRequest } from "../../src/sandbox/life-spec.ts";
import type { SpecRequest } from "../../src/sandbox/spec.ts";
import type { Run } from "./model-engine.ts";

export const hostId = "simulated";
export const labels = remembering(createLabelCodec(hostId, Buffer.alloc(32, 9)));
export const image = "busybox:latest";
export const missingImage = "absent:latest";
export const orphanGraceMs = 5_000;
export const relistPeriodMs = 10_000;
export const concurrentStarts = 2;

const mebibyte = 2 ** 20;

/** Three sandboxes of the usual size fit, a fourth only if they are small. */
export const capacity: Capacity = {
  capacity: { cpuMillis: 4_000, memoryBytes: 512 * mebibyte, pids: 1_000, sandboxes: 4 },
  allocatable: { cpuMillis: 3_000, memoryBytes: 448 * mebibyte, pids: 800, sandboxes: 4 },
  cpuOvercommit: 1,
  memoryOvercommit: 1,
};

export const config = configOf({ env: {}, flags: [], dev: true });

function configOf(options: LoadOptions): Config {
  const loaded = loadConfig(options);
  if ("errors" in loaded) throw new Error(loaded.errors.map(formatConfigError).join("\n"));
  return { ...loaded.config, images: { ...loaded.config.images, allow: ["*"] } };
}

/** What a create asks for, in few words. */
export interface Wish {
  readonly runs: readonly Run[];
  readonly life: LifeRequest;
  readonly memoryMiB: number;
  readonly image: string;
  readonly stopGraceMs: number;
}

export function requestOf(wish: Wish): SpecRequest {
  return {
    template: "",
    image: wish.image,
    command: ["main"],
    args: [],
    env: { RUNS: JSON.stringify(wish.runs) },
    workingDir: "",
    labels: {},
    resources: {
      cpuMillis: 800,
      cpuRequestMillis: 800,
      memoryBytes: wish.memoryMiB * mebibyte,
      memoryRequestBytes: wish.memoryMiB * mebibyte,
      pids: 50,
      tmpfsBytes: mebibyte,
      shmBytes: mebibyte,
    },
    stopGraceMs: wish.stopGraceMs,
    ...wish.life,
  };
}

/** The same labels of the same container are decoded once. */
function remembering({ encode, decode }: LabelCodec): LabelCodec {
  const known = new WeakMap<object, { readonly identity: Identity | undefined }>();
  return {
    encode,
    decode(of) {
      const found = known.get(of) ?? { identity: decode(of) };
      known.set(of, found);
      return found.identity;
    },
  };
}
