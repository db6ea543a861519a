// What the engine stores of images, and how one is removed without force.

import type Docker from "dockerode";
import { type Attempt, engineError, statusOf } from "./calls.ts";
import type { Waiting } from "./runtime.ts";

/** One image on the host. */
export interface StoredImage {
  readonly id: string;
  /** "name:tag". */
  readonly tags: readonly string[];
  /** "name@sha256:…". */
  readonly digests: readonly string[];
  /** With layers that other images share. Unit: bytes. */
  readonly sizeBytes: number;
}

export interface ImageStore {
  /** Without the layers between images, which have no use of their own. */
  list(options?: Waiting): Promise<readonly StoredImage[]>;
  /** Ids of the images of all containers, also of those that are not ours and those that don't run. */
  inUse(options?: Waiting): Promise<ReadonlySet<string>>;
  /** Never by force. False if the engine refuses, since something uses it; gone is success. */
  remove(image: StoredImage, options?: Waiting): Promise<boolean>;
}

/** The engine's word for no name. */
const none = "<none>";

export function createImageStore(docker: Docker, attempt: Attempt): ImageStore {
  const named = (names: readonly string[] | null | undefined) =>
    (names ?? []).filter((name) => !name.includes(none));

  /** False if it was refused. */
  async function removeOne(reference: string, options?: Waiting): Promise<boolean> {
    const image = docker.getImage(reference);
    try {
      await attempt("remove", (abortSignal) => image.remove({ force: false, abortSignal }), options);
      return true;
    } catch (error) {
      const status = statusOf(error);
      if (status === 404) return true;
      if (status === 409) return false;
      throw engineError("remove", error);
    }
  }

  return {
    async list(options) {
      try {
        const found = await attempt(
          "list",
          (abortSignal) => docker.listImages({ all: false, abortSignal }),
          options,
        );
        return found.map(({ Id: id, RepoTags: tags, RepoDigests: digests, Size: sizeBytes }) => ({
          id,
          tags: named(tags),
          digests: named(digests),
          sizeBytes,
        }));
      } catch (error) {
        throw engineError("list", error);
      }
    },
    async inUse(options) {
      try {
        const found = await attempt(
          "list",
          (abortSignal) => docker.listContainers({ all: true, abortSignal }),
          options,
        );
        return new Set(found.map(({ ImageID }) => ImageID));
      } catch (error) {
        throw engineError("list", error);
      }
    },
    async remove({ id, tags, digests }, options) {
      // by its id the engine refuses an image with several names: each name is taken away, and the last takes it along
      const names = tags.length > 0 ? tags : digests;
      if (names.length === 0) return removeOne(id, options);
      for (const name of names) {
        if (!(await removeOne(name, options))) return false;
      }
      return true;
    },
  };
}
