// Mounts images, and takes them off again for good: a file is touched only once no mount of it is left, in whatever namespace.

import { mkdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Waiting } from "../../engine/runtime.ts";
import { SandboxdError } from "../../errors.ts";
import { unavailable } from "./failing.ts";
import { makeOwn, passMode } from "./home.ts";
import { allowsDiscard, devicesOf, forbidDiscard, isDetached, mountedOn } from "./loop-device.ts";
import { type RunTool, ToolError } from "./tool.ts";

export interface LoopMounts {
  /** Has the image mounted on the folder, and nothing else, with nothing of it ever given back to the host. Repairs it first if it must be. */
  hold(image: string, folder: string, waiting: Waiting): Promise<void>;
  /** Mounts an image on a folder to be read. */
  open(image: string, folder: string, waiting: Waiting): Promise<void>;
  /** Whether the image is mounted on the folder. */
  isHeld(image: string, folder: string): Promise<boolean>;
  /** Takes off all that is mounted on the folder. Rejects with WORKSPACE_IN_USE if something uses it. */
  unmount(folder: string): Promise<void>;
  /** As `unmount`; and the file is nobody's disk then. */
  release(image: string, folder: string): Promise<void>;
  /** Waits for what was begun. */
  close(): Promise<void>;
}

const options = ["loop", "nosuid", "nodev", "noatime"];
/** A large file system is looked through in minutes. */
const repairMs = 30 * 60_000;
/** How long a mount may be busy before it is told to be in use. */
const busyMs = 1_000;

export function createLoopMounts(run: RunTool): LoopMounts {
  /** By device: the kernel takes 15 ms for it, which nobody has to wait for. */
  const forbidding = new Map<string, Promise<unknown>>();

  const mount = (image: string, folder: string, more: readonly string[], waiting: Waiting) =>
    run("mount", ["-t", "ext4", "-o", [...options, ...more].join(","), image, folder], waiting);

  /** What it was reserved for stays reserved, even if all file systems of the host are trimmed. A second try is waited for. */
  async function forbid(device: string): Promise<void> {
    if (!(await allowsDiscard(device))) return;
    const before = forbidding.get(device);
    if (before === undefined)
      forbidding.set(
        device,
        forbidDiscard(device).catch(() => {}),
      );
    else await before.then(() => forbidDiscard(device));
  }

  /** As at a boot: what can be put right without losing anything. Its exit code is 1 if it was. */
  async function repair(image: string, mountError: ToolError, waiting: Waiting): Promise<void> {
    await run("e2fsck", ["-p", image], { ...waiting, timeoutMs: repairMs }).catch((error: unknown) => {
      if (error instanceof ToolError && error.exitCode === 1) return;
      throw unavailable(`${image} cannot be mounted (${mountError.said}), nor be repaired`, error);
    });
  }

  /** Whoever asks how full all file systems of a host are (`df`, a monitoring agent) is in each for a moment, and makes it busy. */
  async function takeOff(folder: string): Promise<void> {
    for (const end = Date.now() + busyMs; ; await sleep(20)) {
      try {
        await run("umount", [folder]);
        return;
      } catch (error) {
        if (!(error instanceof ToolError && error.said.includes("busy"))) throw error;
        if (Date.now() > end) throw inUse(folder, error);
      }
    }
  }

  async function unmount(folder: string): Promise<void> {
    for (let found = await mountedOn(folder); found !== undefined; found = await mountedOn(folder)) {
      await forbidding.get(found.device);
      forbidding.delete(found.device);
      await takeOff(folder);
      if (!(await isDetached(found.device, found.image))) throw inUse(folder);
    }
  }

  return {
    async hold(image, folder, waiting) {
      let found = await mountedOn(folder);
      if (found !== undefined && found.image !== image) await unmount(folder);
      if (found?.image !== image) {
        await mkdir(folder, { recursive: true });
        // its tables were zeros when it was made: the kernel need not fill them
        await mount(image, folder, ["noinit_itable"], waiting).catch(async (error: unknown) => {
          if (!(error instanceof ToolError) || error.exitCode === undefined) throw error;
          await repair(image, error, waiting);
          await mount(image, folder, ["noinit_itable"], waiting);
        });
        found = await mountedOn(folder);
      }
      if (found?.image !== image) throw unavailable(`${image} is not what is mounted on ${folder}`);
      await forbid(found.device);
      await makeOwn(folder, passMode);
    },

    async open(image, folder, waiting) {
      await mkdir(folder, { recursive: true });
      await mount(image, folder, ["ro", "noload", "noexec"], waiting);
    },

    isHeld: async (image, folder) => (await mountedOn(folder))?.image === image,

    unmount,

    async release(image, folder) {
      await unmount(folder);
      for (const device of await devicesOf(image)) {
        if (!(await isDetached(device, image))) throw inUse(image);
      }
    },

    async close() {
      await Promise.all(forbidding.values());
    },
  };
}

function inUse(path: string, cause?: unknown): SandboxdError {
  return new SandboxdError("WORKSPACE_IN_USE", `${path} cannot be unmounted: something still uses it`, {
    hint: "end the sandboxes that run with it; a process of the host may be in it too, or another mount namespace hold it",
    cause,
  });
}
