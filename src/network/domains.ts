// Patterns of names: "example.com" is that name, "*.example.com" every name below it and not itself.

/** A name in lower case, of labels as the internet has them (RFC 1123): international ones in their ASCII form. */
const namePattern =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

const wildcard = "*.";

/** As it is kept: lower case, no final dot. */
export function canonicalDomain(text: string): string {
  return text.toLowerCase().replace(/\.$/, "");
}

/** Why a text is no pattern, with what to do; undefined if it is one. It need not be canonical. */
export function domainProblem(text: string): { readonly problem: string; readonly hint: string } | undefined {
  const pattern = canonicalDomain(text);
  const name = pattern.startsWith(wildcard) ? pattern.slice(wildcard.length) : pattern;
  if (/[^\p{ASCII}]/u.test(name)) {
    return {
      problem: "has letters that names in the DNS do not have",
      hint: "write an international name in its ASCII form, which begins with xn--",
    };
  }
  if (name.includes("*")) {
    return { problem: "has a * elsewhere than before the first dot", hint: 'as in "*.example.com"' };
  }
  if (/^[\d.]+$/.test(name)) {
    return { problem: "is no name", hint: "addresses belong into the lists of CIDRs" };
  }
  return namePattern.test(name)
    ? undefined
    : { problem: "is no name", hint: 'write "example.com", or "*.example.com" for every name below it' };
}

/** Whether a name, in lower case and without a final dot, is one of a pattern's. */
export function matchesDomain(pattern: string, name: string): boolean {
  return isPatternWithin(name, pattern);
}

/** Whether every name of `inner` is one of `outer`'s. */
export function isPatternWithin(inner: string, outer: string): boolean {
  if (inner === outer) return true;
  // ".example.com" ends every name below it, exact or not
  return outer.startsWith(wildcard) && inner.endsWith(outer.slice(1)) && inner.length > outer.length - 1;
}

/** What both lists have: of two patterns either one is within the other, or they have no name in common. */
export function commonDomains(one: readonly string[], other: readonly string[]): readonly string[] {
  const within = (inner: readonly string[], outer: ReadonlySet<string>) =>
    inner.filter((pattern) => outer.has(pattern) || widerThan(pattern).some((wider) => outer.has(wider)));
  return canonicalDomains([...within(one, new Set(other)), ...within(other, new Set(one))]);
}

/** In order, without those that another one has anyway. */
export function canonicalDomains(patterns: readonly string[]): readonly string[] {
  const unique = new Set(patterns.map(canonicalDomain));
  return [...unique].filter((pattern) => !widerThan(pattern).some((wider) => unique.has(wider))).toSorted();
}

/** The patterns, other than itself, that have all of its names. */
function widerThan(pattern: string): readonly string[] {
  const labels = (pattern.startsWith(wildcard) ? pattern.slice(wildcard.length) : pattern).split(".");
  return labels.slice(1).map((_, index) => `${wildcard}${labels.slice(index + 1).join(".")}`);
}
