/** Whether an engine answers on the socket. */
export function answers(socket: string): Promise<boolean>;

/** One call with JSON; a status of 400 or more is an error. */
export function callJson(socket: string, method: string, path: string, value?: unknown): Promise<unknown>;

/** One call. Fails when nothing answers within `timeoutMs` of silence. */
export function call(
  socket: string,
  method: string,
  path: string,
  options?: { readonly timeoutMs?: number },
): Promise<{ readonly status: number; readonly body: string }>;
