export function unmountIn(directory: string): void;
