// The engine's volumes that plans need: made before a container that has them, compared before each use, removed when no
// container has them. Nobody else's volume is ever touched.

import type Docker from "dockerode";
import type { VolumeInspectInfo } from "dockerode";
import { SandboxdError } from "../errors.ts";
import { type Attempt, orFailure, statusOf, unless } from "./calls.ts";
import type { ContainerPlan, VolumeMount } from "./container-plan.ts";
import { engineMounts } from "./mounts.ts";
import type { Waiting } from "./runtime.ts";

export interface Volumes {
  /**
   * Makes the plan's volumes that are not there, then does `step`, which gives them to a container: none is swept away in
   * between. One of ours that is otherwise, as the configuration was, is made anew if no container has it.
   *
   * That of the toolbox, which every container has, is looked at once, and again after `doubt`: the engine makes one that is gone
   * again with the container, and what a container sees of it is compared after each start.
   *
   * @throws SandboxdError HARDENING_MISMATCH for one that is not ours, or in use otherwise.
   */
  with<T>(plan: ContainerPlan, step: () => Promise<T>, options?: Waiting): Promise<T>;
  /** @throws SandboxdError HARDENING_MISMATCH for one that is gone or not as the plan says. */
  compare(plan: ContainerPlan, options?: Waiting): Promise<void>;
  /**
   * Removes those with this label that no container has, never by force. Resolves to their names; to undefined, with nothing
   * done, while one is being given to a container.
   */
  sweep(label: string, options?: Waiting): Promise<readonly string[] | undefined>;
  /** Something was not as planned: all are looked at again. */
  doubt(): void;
}

export function createVolumes(docker: Docker, attempt: Attempt): Volumes {
  /** Steps under way that give volumes to containers. */
  let users = 0;
  let sweeping: Promise<void> | undefined;
  /** Volumes of toolboxes that were as planned. */
  const known = new Set<string>();

  const inspect = (name: string, options?: Waiting) =>
    unless(
      [404],
      "inspect",
      attempt("inspect", (abortSignal) => docker.getVolume(name).inspect({ abortSignal }), options),
    );

  /** False if a container has it. Gone is success. */
  async function remove(name: string, options?: Waiting): Promise<boolean> {
    const ask = async (abortSignal: AbortSignal) => {
      try {
        await docker.getVolume(name).remove({ abortSignal });
        return true;
      } catch (error) {
        if (statusOf(error) === 404) return true;
        if (statusOf(error) === 409) return false;
        throw error;
      }
    };
    return orFailure("remove", attempt("remove", ask, options));
  }

  /** What is there already stays as it is, and is no failure to the engine. */
  async function make({ name, options: driverOptions, labels }: VolumeMount, options?: Waiting) {
    const wanted = { Name: name, Driver: "local", DriverOpts: { ...driverOptions }, Labels: { ...labels } };
    const made = attempt("create", (abortSignal) => docker.createVolume({ ...wanted, abortSignal }), options);
    await orFailure("create", made);
    return inspect(name, options);
  }

  async function ensureOne(mount: VolumeMount, labelPrefix: string, options?: Waiting): Promise<void> {
    const host = `${labelPrefix}host`;
    let found = (await inspect(mount.name, options)) ?? (await make(mount, options));
    const owner = mount.labels[host];
    const isOurs = owner !== undefined && found?.Labels?.[host] === owner;
    if (differenceOf(mount, found) !== undefined && isOurs && (await remove(mount.name, options)))
      found = await make(mount, options);
    refuseOther(mount, found);
  }

  const isKnown = ({ toolbox }: ContainerPlan) => toolbox !== undefined && known.has(toolbox.volume);
  const toLookAt = (plan: ContainerPlan) =>
    volumesOf(plan).filter(({ name }) => !(isKnown(plan) && name === plan.toolbox?.volume));
  const looked = ({ toolbox }: ContainerPlan) => {
    if (toolbox !== undefined) known.add(toolbox.volume);
  };

  async function sweepAll(label: string, options?: Waiting): Promise<readonly string[]> {
    const filters = { label: [label], dangling: ["true"] };
    const list = (abortSignal: AbortSignal) => docker.listVolumes({ filters, abortSignal });
    // the engine says null for none
    const { Volumes: found } = await orFailure("list", attempt("list", list, options));
    const removed: string[] = [];
    for (const { Name: name } of found ?? []) if (await remove(name, options)) removed.push(name);
    return removed;
  }

  return {
    async with(plan, step, options) {
      const wanted = toLookAt(plan);
      if (wanted.length === 0) return step();
      while (sweeping !== undefined) await sweeping;
      users += 1;
      try {
        for (const mount of wanted) await ensureOne(mount, plan.labelPrefix, options);
        looked(plan);
        return await step();
      } finally {
        users -= 1;
      }
    },
    async compare(plan, options) {
      for (const mount of toLookAt(plan)) refuseOther(mount, await inspect(mount.name, options));
      looked(plan);
    },
    doubt: () => known.clear(),
    async sweep(label, options) {
      if (users > 0 || sweeping !== undefined) return undefined;
      const swept = sweepAll(label, options);
      const ended = () => {
        sweeping = undefined;
      };
      sweeping = swept.then(ended, ended);
      return swept;
    },
  };
}

function volumesOf(plan: ContainerPlan): readonly VolumeMount[] {
  return engineMounts(plan).flatMap((mount) => (mount.kind === "volume" ? [mount] : []));
}

function refuseOther(mount: VolumeMount, found: VolumeInspectInfo | undefined): void {
  const difference = differenceOf(mount, found);
  if (difference === undefined) return;
  throw new SandboxdError(
    "HARDENING_MISMATCH",
    `the engine's volume ${mount.name} is another than planned: ${difference}`,
    {
      hint: "remove the containers that have it, and the volume with `docker volume rm`; the daemon makes it anew",
      metadata: { volume: mount.name },
    },
  );
}

/** The first thing that is not as planned. */
function differenceOf(mount: VolumeMount, found: VolumeInspectInfo | undefined): string | undefined {
  if (found === undefined) return "it is gone";
  const pairs = [
    ["driver", "local", found.Driver],
    ["options", textOf(mount.options), textOf(found.Options ?? {})],
    ["labels", textOf(mount.labels), textOf(found.Labels ?? {})],
  ] as const;
  const other = pairs.find(([, wanted, got]) => wanted !== got);
  return other === undefined ? undefined : `${other[0]}: wanted ${other[1]}, got ${other[2]}`;
}

function textOf(words: Readonly<Record<string, string>>): string {
  const sorted = Object.entries(words).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(sorted));
}
