// Numbers, times and values as people read them. Pure.

/** A score: up to five significant digits, never more than eight characters wide where that can be. */
export function score(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(3);
  return size >= 1000 ? value.toFixed(1) : value.toFixed(size >= 100 ? 2 : size >= 10 ? 3 : 4);
}

/** A quantity (energy, carbon, cost) with three significant digits or more, as in the files of a model card. */
export function figures(value: number): string {
  const size = Math.abs(value);
  if (size >= 999.5) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return size && size < 1e-3 ? value.toExponential(2) : `${Number(value.toPrecision(3))}`;
}

/** `7.2s`, `3m 07s`, `2h 05m`, `3d 04h`; seconds. */
export function duration(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.1) return "0s";
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  const two = (n: number): string => `${n}`.padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}m ${two(whole % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h ${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

/** Unix time in ms as date and time of day here. */
export function time(ms: number | null): string {
  if (!ms) return "–";
  const date = new Date(ms);
  const two = (n: number): string => `${n}`.padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** How long ago, in words. */
export function ago(ms: number, now = Date.now()): string {
  const seconds = Math.max(0, (now - ms) / 1000);
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

export function count(value: number): string {
  return `${value}`.replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A swept value: short, on one line. */
export function value(of: unknown): string {
  if (of === null) return "null";
  if (typeof of === "string") return of;
  if (typeof of === "number") return number(of);
  return typeof of === "object" ? JSON.stringify(of).replace(/"/g, "") : String(of);
}

/** A number as people write it in YAML: 0.001, 1e-5, 20000. */
export function number(of: number): string {
  return of !== 0 && Math.abs(of) < 1e-3 ? of.toExponential().replace("e+", "e") : String(of);
}

/** The shortest endings of dotted paths that still tell them apart: `lr`, or `params.lr`. */
export function shortNames(paths: readonly string[]): Map<string, string> {
  const split = paths.map((path) => path.split("."));
  const names = new Map<string, string>();
  paths.forEach((path, i) => {
    const parts = split[i] as string[];
    let ending = path;
    for (let length = 1; length <= parts.length; length++) {
      ending = parts.slice(-length).join(".");
      if (split.filter((other) => other.slice(-length).join(".") === ending).length === 1) break;
    }
    names.set(path, ending);
  });
  return names;
}
