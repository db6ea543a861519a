// Which images may go when the engine's disk is full, and in which order. Pure.

import type { StoredImage } from "../engine/images.ts";
import { withTag } from "../sandbox/image-policy.ts";

/** When an image was first seen, and last seen in use. Steady time. */
export interface ImageUse {
  readonly firstSeenMs: number;
  readonly lastUsedMs: number;
}

export type ImageUses = Readonly<Record<string, ImageUse>>;

export interface Collectable {
  readonly images: readonly StoredImage[];
  /** Ids of images of which there is a container, running or not, of whomever. */
  readonly inUse: ReadonlySet<string>;
  /** References that the configuration or a sandbox names. */
  readonly named: readonly string[];
  /** Whether an image with a name could be had again. */
  readonly canPull: boolean;
  readonly uses: ImageUses;
  readonly minimumAgeMs: number;
}

/**
 * What may be removed, in order: what has no name any more first, since nobody can ask for it; then the least recently
 * used, as the kubelet does (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-garbage-collection).
 */
export function chooseImages(
  { images, inUse, named, canPull, uses, minimumAgeMs }: Collectable,
  nowMs: number,
): readonly StoredImage[] {
  const kept = new Set(named.map(withTag));
  const isKept = ({ id, tags, digests }: StoredImage) =>
    kept.has(id) || [...tags, ...digests].some((name) => kept.has(withTag(name)));
  const isYoung = ({ id }: StoredImage) => {
    const use = uses[id];
    return use === undefined || nowMs - Math.max(use.firstSeenMs, use.lastUsedMs) < minimumAgeMs;
  };
  const usedMs = ({ id }: StoredImage) => uses[id]?.lastUsedMs ?? 0;
  return images
    .filter((image) => !inUse.has(image.id) && !isKept(image) && !isYoung(image))
    .filter((image) => canPull || isDangling(image))
    .toSorted(
      (a, b) =>
        Number(isDangling(b)) - Number(isDangling(a)) || usedMs(a) - usedMs(b) || (a.id < b.id ? -1 : 1),
    );
}

/** Without a name: another image has taken it. */
export function isDangling({ tags, digests }: StoredImage): boolean {
  return tags.length === 0 && digests.length === 0;
}

/** What is remembered after one more look: of images that are there, and no others. */
export function noteUses(
  before: ImageUses,
  images: readonly StoredImage[],
  inUse: ReadonlySet<string>,
  nowMs: number,
): ImageUses {
  return Object.fromEntries(
    images.map(({ id }) => {
      const { firstSeenMs, lastUsedMs } = before[id] ?? { firstSeenMs: nowMs, lastUsedMs: 0 };
      return [id, { firstSeenMs, lastUsedMs: inUse.has(id) ? nowMs : lastUsedMs }];
    }),
  );
}
