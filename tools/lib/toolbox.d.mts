/** Compiles docker/toolbox/ into dist/toolbox/toolbox unless that is up to date, and returns its path. */
export function ensureToolbox(options: { readonly log: (line: string) => void }): Promise<string>;
