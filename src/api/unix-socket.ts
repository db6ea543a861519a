// The unix socket's place in the file system: made ours, or refused because it is somebody else's.
import { chmodSync, chownSync } from "node:fs";
import { lstat, mkdir, readFile, unlink } from "node:fs/promises";
import type { Server } from "node:net";
import { connect } from "node:net";
import { dirname } from "node:path";
import { messageOf } from "../errors.ts";

/** Makes the parent directory, and removes a socket on which nobody answers. Throws if somebody does. */
export async function claimSocketPath(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  });
  if (found === undefined) {
    return;
  }
  if (!found.isSocket()) {
    throw new Error(`${path} exists and is not a socket.\nHint: choose another path, or remove the file.`);
  }
  const answer = await knock(path);
  if (answer === "listening") {
    throw new Error(`Another process listens on ${path}.\nHint: is a daemon running already?`);
  }
  if (answer !== "ECONNREFUSED" && answer !== "ENOENT") {
    throw new Error(
      `The socket ${path} exists, and whether anybody listens on it cannot be seen: ${answer}.`,
    );
  }
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") {
      throw error;
    }
  });
}

function knock(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve("listening");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

/** Listens on the path; nobody but the owner can connect until group and mode are set. */
export function listenOnPath(
  server: Server,
  path: string,
  mode: number,
  gid: number | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const umask = process.umask(0o177);
    try {
      server.listen({ path }, () => {
        try {
          if (gid !== undefined) {
            chownSync(path, -1, gid);
          }
          chmodSync(path, mode);
          server.off("error", reject);
          resolve();
        } catch (error) {
          server.close();
          reject(error);
        }
      });
    } finally {
      process.umask(umask);
    }
  });
}

/** The id of a group given by name or number. Throws if the host has no such group. */
export async function groupId(group: string | number): Promise<number> {
  if (typeof group === "number" || /^[0-9]+$/.test(group)) {
    return Number(group);
  }
  const lines = await readFile("/etc/group", "utf8").catch((error: unknown) => {
    throw new Error(`The group "${group}" cannot be looked up: ${messageOf(error)}.`, { cause: error });
  });
  for (const line of lines.split("\n")) {
    const [name, , id] = line.split(":");
    if (name === group && id !== undefined) {
      return Number(id);
    }
  }
  throw new Error(`The host has no group "${group}".\nHint: groupadd --system ${group}`);
}
