/** In the environment of every process of a private engine, and of every daemon that a test starts: its name. */
export const engineMark: string;

/** Removes the cgroups of a name, in which no process is any more. */
export function removeCgroups(name: string): Promise<void>;
