export function unmountIn(directory: string): Promise<void>;
