// Finds the container of a sandbox at the engine, and tells it from what only has its name.

import type { Container, Runtime, Waiting } from "../engine/runtime.ts";
import type { LabelCodec } from "./labels.ts";
import { containerName } from "./plan.ts";
import type { SandboxRecord } from "./record.ts";

export type Found =
  | { readonly kind: "absent" }
  | { readonly kind: "own"; readonly container: Container }
  /** Of an earlier sandbox of this id. */
  | { readonly kind: "earlier"; readonly containerId: string; readonly instance: string }
  /** Not this host's. */
  | { readonly kind: "foreign"; readonly containerId: string };

export interface LookupOptions extends Waiting {
  readonly runtime: Pick<Runtime, "inspect">;
  readonly labels: LabelCodec;
  readonly hostId: string;
  /** The container that the engine was last heard to have for it. */
  readonly heardOf?: string;
}

/**
 * By the id that it is recorded or was heard of with, so that it is found whatever somebody on the host has named it; else by name, so
 * that a create whose answer was lost is found again.
 */
export async function lookUp(
  { id, instance, containerId }: SandboxRecord,
  { runtime, labels, hostId, heardOf = "", signal }: LookupOptions,
): Promise<Found> {
  const waiting = signal === undefined ? {} : { signal };
  for (const known of new Set([containerId, heardOf])) {
    const container = known === "" ? undefined : await runtime.inspect(known, waiting);
    if (container !== undefined && labels.decode(container.labels)?.instance === instance) {
      return { kind: "own", container };
    }
  }
  const container = await runtime.inspect(containerName(hostId, id), waiting);
  if (container === undefined) return { kind: "absent" };
  const identity = labels.decode(container.labels);
  if (identity === undefined) return { kind: "foreign", containerId: container.id };
  return identity.instance === instance
    ? { kind: "own", container }
    : { kind: "earlier", containerId: container.id, instance: identity.instance };
}
