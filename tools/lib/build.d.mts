/** Compiles src/, gen/ and docker/toolbox/ into dist/ unless that is up to date. */
export function ensureBuild(options: { readonly log: (line: string) => void }): Promise<void>;
