/** A whole host for tests; what each member does is said in guest.mjs. */
export interface Guest {
  isUp(): boolean;
  boot(): Promise<void>;
  create(): Promise<void>;
  reboot(): Promise<void>;
  crash(): Promise<void>;
  save(tag: string): Promise<void>;
  rewind(tag: string): Promise<void>;
  run(command: string, options?: { readonly timeoutMs?: number; readonly input?: string }): Promise<string>;
  upload(archive: string, to: string): Promise<void>;
  forward(remote: string): Promise<string>;
  close(): Promise<void>;
}

/** The guest of a folder, running or not. */
export function openGuest(options: { readonly image: string; readonly directory: string }): Guest;
