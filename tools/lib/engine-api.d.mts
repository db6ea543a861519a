/** Whether an engine answers on the socket. */
export function answers(socket: string): Promise<boolean>;

/** One call with JSON; a status of 400 or more is an error. */
export function callJson(socket: string, method: string, path: string, value?: unknown): Promise<unknown>;
