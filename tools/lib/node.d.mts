/** Path of the pinned Node. */
export const pinnedNode: string;
/** How Node runs the daemon. */
export const daemonFlags: readonly string[];
