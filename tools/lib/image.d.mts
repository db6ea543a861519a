/** Sees to it that the engine has the image `sandboxd-base:latest`. */
export function ensureBaseImage(
  socket: string,
  options: { readonly log: (line: string) => void; readonly registry: boolean },
): Promise<void>;
