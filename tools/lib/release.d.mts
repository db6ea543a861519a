/** Writes a tar file of all that a host needs. */
export function packRelease(file: string): Promise<void>;
