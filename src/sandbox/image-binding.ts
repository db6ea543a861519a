// Binds a sandbox to the content that its image's name means.

import type { Image, Runtime } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { Settlement } from "./decide.ts";
import { labelPrefix } from "./labels.ts";
import type { SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";
import { pulling } from "./transition.ts";

export interface ImageBindingOptions {
  readonly runtime: Pick<Runtime, "image" | "pull">;
  readonly repository: Repository;
  readonly pullImages: boolean;
  /** Records a transition. */
  readonly settle: (record: SandboxRecord, settlement: Settlement) => SandboxRecord;
}

export interface ImageBinding {
  /** The record as it is now, bound to what the name means now, once. @throws SandboxdError IMAGE_UNAVAILABLE, IMAGE_UNSUPPORTED, and what the engine says. */
  bind(record: SandboxRecord): Promise<SandboxRecord>;
}

export function createImageBinding(options: ImageBindingOptions): ImageBinding {
  const { runtime, repository, settle } = options;
  /** Lookups under way: those who ask meanwhile for the same image share them. */
  const lookups = new Map<string, Promise<Image | undefined>>();

  function findImage(reference: string): Promise<Image | undefined> {
    const known = lookups.get(reference);
    if (known !== undefined) return known;
    const lookup = runtime.image(reference).finally(() => lookups.delete(reference));
    lookups.set(reference, lookup);
    return lookup;
  }

  async function bind(record: SandboxRecord): Promise<SandboxRecord> {
    const now = () => repository.get(record.id) ?? record;
    if (record.imageId !== "") return now();
    const { image: reference } = record.spec;
    let image = await findImage(reference);
    if (image === undefined && options.pullImages) {
      const accepted = repository.unmoved(record);
      if (accepted === undefined) return record;
      if (accepted.state !== "PULLING") settle(accepted, pulling(reference));
      await runtime.pull(reference);
      // a lookup that others began before would not know it yet
      image = await runtime.image(reference);
    }
    if (image === undefined) {
      throw new SandboxdError("IMAGE_UNAVAILABLE", `image ${reference} is not on this host`, {
        hint: 'pull it on the host, or set [images] pull = "missing"',
      });
    }
    const reserved = Object.keys(image.labels).find((key) => key.startsWith(labelPrefix));
    if (reserved !== undefined) {
      throw new SandboxdError(
        "IMAGE_UNSUPPORTED",
        `image ${reference} carries the reserved label "${reserved}"`,
        { hint: `build it without labels that begin with "${labelPrefix}"` },
      );
    }
    return { ...now(), imageId: image.id, imageVolumes: image.volumes };
  }

  return { bind };
}
