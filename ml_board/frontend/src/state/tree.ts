// Nested configurations as lists of dotted paths, and how several of them differ. Pure.

/** Stands where a configuration does not have a path: null is a value. */
export const MISSING = Symbol("missing");

/**
 * Dotted path -> what stands there, in the order of the document. A list of plain values is one value, as is what is empty.
 * A key that could be taken for a path is quoted: `{"a.b": 1}` gives `"a.b"`, and a plain value alone stands at ``.
 */
export function flatten(value: unknown): Map<string, unknown> {
  const found = new Map<string, unknown>();
  const walk = (here: unknown, path: string): void => {
    const inner = entries(here);
    if (!inner) found.set(path, here);
    else for (const [key, next] of inner) walk(next, path ? `${path}.${key}` : key);
  };
  walk(value, "");
  return found;
}

function entries(value: unknown): [string, unknown][] | null {
  if (typeof value !== "object" || value === null) return null;
  if (Array.isArray(value)) {
    return value.some((one) => typeof one === "object" && one !== null) ? value.map((one, i) => [`${i}`, one]) : null;
  }
  const inner = Object.entries(value);
  return inner.length ? inner.map(([key, one]) => [/^[^."]+$/.test(key) ? key : JSON.stringify(key), one]) : null;
}

export interface Difference {
  path: string;
  /** One for each configuration; MISSING where it has no such path, undefined where nothing is known of it. */
  values: unknown[];
  differs: boolean;
}

/** Every path of any of them, where one first has it. null: one that is not known, and so differs from none. */
export function diff(all: readonly (ReadonlyMap<string, unknown> | null)[]): Difference[] {
  const paths = new Set(all.flatMap((one) => [...(one?.keys() ?? [])]));
  return [...paths].map((path) => {
    const values = all.map((one) => (one ? (one.has(path) ? one.get(path) : MISSING) : undefined));
    const known = values.filter((value) => value !== undefined);
    return { path, values, differs: known.some((value) => !same(value, known[0])) };
  });
}

/** Whether two values of `flatten` are the same: 1 and "1" are not. */
export function same(a: unknown, b: unknown): boolean {
  return a === b || (typeof a === "object" && typeof b === "object" && JSON.stringify(a) === JSON.stringify(b));
}
