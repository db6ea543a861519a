/** A private Docker Engine; what each member does is said in engine.mjs. */
export interface PrivateEngine {
  readonly socket: string;
  readonly name: string;
  readonly namespacePid: number;
  readonly pid: number;
  readonly containerdPid: number;
  kill(): Promise<void>;
  freeze(): Promise<void>;
  thaw(): void;
  restart(options?: { readonly liveRestore?: boolean }): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a private engine and waits until it answers. */
export function startPrivateEngine(options: {
  readonly directory: string;
  readonly name: string;
  readonly log: (line: string) => void;
  readonly liveRestore?: boolean;
  readonly keep?: boolean;
}): Promise<PrivateEngine>;
