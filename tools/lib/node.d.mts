/** Path of the pinned Node. */
export const pinnedNode: string;
