// A container as the daemon makes it, with the toolbox in it and one program in its image, without the daemon.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Docker from "dockerode";
import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import { installToolbox } from "../../src/toolbox/install.ts";
import { removeBattery } from "../isolation/battery.ts";
import { importImage, planFor, removeCgroup } from "../isolation/container.ts";
import { sharedEngine } from "./engine.ts";
import { type Inside, openInside } from "./inside.ts";

/** The toolbox, as it was built. */
const builtToolbox = fileURLToPath(new URL("../../dist/toolbox/toolbox", import.meta.url));

export interface Contained {
  readonly inside: Inside;
  readonly plan: ContainerPlan;
  readonly docker: Docker;
  readonly containerId: string;
  /** Of its toolbox. */
  readonly version: string;
  close(): Promise<void>;
}

export interface ContainedOptions {
  /** Of the image and the container; and of the sandbox to the link. */
  readonly name: string;
  /** Its program is in the image as /bin/probe. */
  readonly program: (directory: string) => Promise<string>;
  readonly args: readonly string[];
  readonly patienceMs?: number;
}

/** Starts it; `inside` knows it by its name. */
export async function contain({ name, program, args, patienceMs }: ContainedOptions): Promise<Contained> {
  const docker = new Docker({ socketPath: sharedEngine() });
  const directory = mkdtempSync(join(tmpdir(), "contained-"));
  const volumeOf = (version: string) => `${name}_toolbox_${version}`;
  const toolbox = installToolbox({ program: builtToolbox, directory: join(directory, "toolbox"), volumeOf });
  const version = toolbox.version();
  if (version === undefined) throw new Error(toolbox.problem());
  const image = await importImage(docker, await program(directory), directory, name);
  const base = await planFor(docker, name, image, undefined);
  const plan = { ...base, gid: base.uid, args, toolbox: toolbox.at(version) };
  const { cgroupParent, uid } = plan;
  const inside = await openInside({
    toolbox,
    cgroupParent,
    ...(patienceMs === undefined ? {} : { patienceMs }),
  });
  const close = async () => {
    inside.close();
    await removeBattery(docker, name);
    await docker.getVolume(volumeOf(version)).remove();
    rmSync(directory, { recursive: true, force: true });
    removeCgroup(cgroupParent);
  };
  try {
    const made = await inside.runtime.create(plan);
    if (made === "taken") throw new Error(`${name} is taken`);
    await inside.runtime.compare(made.id, plan, { isNew: true });
    await inside.runtime.start(made.id);
    await inside.runtime.verify(made.id, plan);
    inside.tell(name, { id: name, uid, containerId: made.id, toolbox: version });
    return { inside, plan, docker, containerId: made.id, version, close };
  } catch (error) {
    await close();
    throw error;
  }
}
