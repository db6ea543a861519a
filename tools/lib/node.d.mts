/** Path of the pinned Node. */
export const pinnedNode: string;
/** Path of what runs the daemon with it. */
export const launcher: string;
