export const planted: readonly {
  readonly name: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
}[];
