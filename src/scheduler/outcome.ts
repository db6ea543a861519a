// How a session can end.

/** What ended a session. */
export type Outcome =
  /** The connection, or the scheduler's side of the call, is gone. */
  | { readonly kind: "lost"; readonly message: string }
  /** The scheduler did what the contract does not allow. */
  | { readonly kind: "violation"; readonly message: string }
  /** The scheduler's term is older than the newest seen. */
  | { readonly kind: "fenced"; readonly message: string }
  /** The scheduler named another endpoint. */
  | { readonly kind: "redirected"; readonly endpoint: string }
  /** The host's own state could not be read or written. */
  | { readonly kind: "failed"; readonly message: string }
  /** This side said goodbye. */
  | { readonly kind: "left" };
