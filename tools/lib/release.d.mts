/** Writes a tar file of all that a host needs, and returns the release's id. */
export function packRelease(file: string, options?: { readonly id?: string }): Promise<string>;
