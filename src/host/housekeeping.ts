// Removes what nobody needs any more: sandboxes that ended long ago, and images that nothing uses once the disk is full.

import { statfs } from "node:fs/promises";
import type { Config } from "../config/config.ts";
import type { ImageStore, StoredImage } from "../engine/images.ts";
import { messageOf } from "../errors.ts";
import { chooseImages, type ImageUses, isDangling, noteUses } from "../image/collection.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import { actors } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Why } from "../sandbox/transition.ts";
import type { Store } from "../store/store.ts";
import type { Host } from "./host.ts";
import { chooseRetired, isAtRest, type Retired } from "./retirement.ts";

export interface HousekeepingOptions {
  readonly rules: Config["housekeeping"];
  /** As it is now: a reload may change which images it names. */
  readonly config: () => Pick<Config, "images" | "templates">;
  readonly host: Pick<Host, "engine" | "isUsable">;
  readonly repository: Repository;
  readonly store: Pick<Store, "meta" | "transact">;
  readonly images: ImageStore;
  readonly clock: Clock;
  /** Deletes a sandbox that has ended; returns at once. */
  readonly remove: (id: string, why: Why) => void;
  readonly onRetired: () => void;
  readonly onImageRemoved: () => void;
  /** Share of a file system that is in use, of what its users may use. Unit: percent. Default: asks the file system. */
  readonly usedPercent?: (directory: string) => Promise<number>;
  readonly log: Log;
}

export interface Housekeeping {
  /** One round now, or as soon as the one under way has ended. Never rejects. */
  tidy(): Promise<void>;
  /** Ends the round under way after what it is doing. */
  close(): Promise<void>;
}

const usesKey = "image_uses";
/** A container that the engine does not remove by then is left to its own retries. */
const removalMs = 60_000;

/** What one look at the engine's images has shown. */
interface Seen {
  readonly stored: readonly StoredImage[];
  readonly inUse: ReadonlySet<string>;
  /** Steady time. */
  readonly nowMs: number;
}

export function createHousekeeping(options: HousekeepingOptions): Housekeeping {
  const { rules, host, repository, store, images, clock, log } = options;
  const usedPercent = options.usedPercent ?? askUsedPercent;
  const closing = new AbortController();
  const { signal } = closing;
  /** Since when an instance is seen at rest. Steady time: the wall clock may be set meanwhile. */
  const restedMs = new Map<string, number>();
  /** What a dry run has said, so that it says it once. */
  const told = new Set<string>();
  const kept = store.meta(usesKey);
  let uses: ImageUses = kept === undefined ? {} : (JSON.parse(kept) as ImageUses);
  let round: Promise<void> = Promise.resolve();
  let waiting = false;

  const unsubscribe = repository.subscribe((id) => {
    const record = repository.get(id);
    if (record !== undefined && isAtRest(record) && !restedMs.has(record.instance)) {
      restedMs.set(record.instance, clock.nowMs());
    }
  });

  async function retire(): Promise<void> {
    const nowMs = clock.nowMs();
    const rested = repository.all().filter(isAtRest);
    const instances = new Set(rested.map(({ instance }) => instance));
    for (const instance of restedMs.keys()) if (!instances.has(instance)) restedMs.delete(instance);
    const aged = rested.map((record) => ({
      record,
      // of one that ended before this daemon began, the time that was written then
      sinceMs: restedMs.get(record.instance) ?? Math.min(nowMs, record.transition.timeMs),
    }));
    const retention = { ageMs: rules.keepStoppedAgeMs, count: rules.keepStoppedCount };
    for (const retired of chooseRetired(aged, retention, nowMs)) {
      if (signal.aborted) return;
      if (rules.dryRun) say(retired.record.instance, () => logRetired(retired));
      else await retireOne(retired);
    }
  }

  const logRetired = ({ record, why }: Retired) =>
    log.info({ sandbox: record.id, tenant: record.tenant, outcome: "dry run" }, `would delete it: ${why}`);

  /** One after the other, so that the engine has time for what callers want. */
  async function retireOne({ record: { id, instance }, why }: Retired): Promise<void> {
    const record = repository.get(id);
    if (record?.instance !== instance || !isAtRest(record)) return;
    options.remove(id, { reason: "RETIRED", message: `no longer kept: ${why}`, actor: actors.policy });
    options.onRetired();
    const soon = AbortSignal.any([signal, AbortSignal.timeout(removalMs)]);
    await repository.until(id, (now) => now?.instance !== instance, soon).catch(() => undefined);
  }

  async function collect(): Promise<void> {
    const dataRoot = host.engine()?.dataRoot;
    if (!rules.collectImages || dataRoot === undefined) return;
    const stored = await images.list({ signal });
    const inUse = await images.inUse({ signal });
    const nowMs = clock.nowMs();
    uses = noteUses(uses, stored, inUse, nowMs);
    store.transact((transaction) => transaction.setMeta(usesKey, JSON.stringify(uses)));
    if ((await usedPercent(dataRoot)) < rules.imagesHighPercent) return;
    const tried = new Set<string>();
    while (!signal.aborted) {
      const used = await usedPercent(dataRoot);
      if (used <= rules.imagesLowPercent) return;
      // chosen anew each time: a sandbox that was accepted meanwhile may need the next one
      const image = choice({ stored, inUse, nowMs }).find(({ id }) => !tried.has(id));
      if (image === undefined) return;
      tried.add(image.id);
      const fields = { image: image.tags[0] ?? image.id };
      const what = `${isDangling(image) ? "dangling" : "unused"} image of ${image.sizeBytes} bytes, the disk is ${Math.round(used)} % full`;
      if (rules.dryRun) {
        say(image.id, () => log.info({ ...fields, outcome: "dry run" }, `would remove it: ${what}`));
      } else if (await images.remove(image, { signal })) {
        options.onImageRemoved();
        log.info(fields, `removed: ${what}`);
      } else {
        log.info(fields, "the engine did not remove it: something uses it");
      }
    }
  }

  function choice({ stored, inUse, nowMs }: Seen): readonly StoredImage[] {
    const collectable = {
      images: stored,
      inUse,
      named: named(),
      canPull: options.config().images.pull === "missing",
      uses,
      minimumAgeMs: rules.imagesMinimumAgeMs,
    };
    return chooseImages(collectable, nowMs);
  }

  /** What templates, the allow-list and sandboxes name, those that are just being created included. */
  function named(): readonly string[] {
    const { images: policy, templates } = options.config();
    const ofTemplates = Object.values(templates).flatMap(({ image }) => image ?? []);
    const ofSandboxes = repository.all().flatMap(({ spec, imageId }) => [spec.image, imageId]);
    return [...ofTemplates, ...policy.allow, ...ofSandboxes].filter((name) => name !== "");
  }

  function say(key: string, line: () => void): void {
    if (told.has(key)) return;
    told.add(key);
    line();
  }

  async function attempt(what: string, work: () => Promise<void>): Promise<void> {
    try {
      if (!signal.aborted && host.isUsable()) await work();
    } catch (error) {
      if (!signal.aborted) log.warn({ err: messageOf(error) }, `${what} failed; it is tried again`);
    }
  }

  function tidy(): Promise<void> {
    // a round that has not begun will see what the caller saw
    if (waiting || signal.aborted) return round;
    waiting = true;
    round = round.then(async () => {
      waiting = false;
      await attempt("deleting what has ended", retire);
      await attempt("collecting images", collect);
    });
    return round;
  }

  const timer = setInterval(() => void tidy(), rules.periodMs);
  return {
    tidy,
    async close() {
      clearInterval(timer);
      unsubscribe();
      closing.abort();
      await round;
    },
  };
}

async function askUsedPercent(directory: string): Promise<number> {
  const { blocks, bfree, bavail } = await statfs(directory);
  const used = blocks - bfree;
  // as df(1): what only root may use counts neither as used nor as free
  return used + bavail === 0 ? 0 : (used / (used + bavail)) * 100;
}
