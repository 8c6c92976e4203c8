// What comes over the wire is looked at once, here. The rules are those of the Python structs (see events.ts): an
// event that does not fit its type counts as one of an unknown type.

import { PAYLOADS, STRUCTS, type KnownEvent, type Scalar, type Shape } from "./events";

/** An event as it came. `known` is null when its type is unknown, or its payload is none of that type. */
export interface Incoming {
  seq: number;
  known: KnownEvent | null;
  raw: Record<string, unknown>;
}

export function incoming(raw: unknown): Incoming {
  const event = isObject(raw) ? raw : {};
  const seq = typeof event.seq === "number" ? event.seq : 0;
  const type = event.event_type;
  const payload = typeof type === "string" && Object.hasOwn(PAYLOADS, type) ? PAYLOADS[type] : undefined;
  const envelope: [unknown, Shape][] = [
    [event.creation_ts ?? 0, "int"],
    [event.source ?? "", "string"],
    [event.n ?? 0, "int"],
    [event.attempt ?? 1, "int"],
  ];
  const fits = payload !== undefined && envelope.every(([value, shape]) => is(value, shape)) && is(event.payload, payload);
  return {
    seq,
    raw: event,
    known: fits ? ({ ...event, creation_ts: event.creation_ts ?? 0, attempt: event.attempt ?? 1 } as unknown as KnownEvent) : null,
  };
}

/** A score as a number: JSON has no NaN and no infinities, so there they are words. */
export function scalar(value: Scalar): number {
  return typeof value === "number" ? value : Number(value);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function is(value: unknown, shape: Shape): boolean {
  if (typeof shape !== "string") {
    if ("any" in shape) return shape.any.some((one) => is(value, one));
    if ("words" in shape) return typeof value === "string" && shape.words.includes(value);
    if ("list" in shape) return Array.isArray(value) && value.every((one) => is(one, shape.list));
    return isObject(value) && Object.values(value).every((one) => is(one, shape.map));
  }
  switch (shape) {
    case "anything":
      return value !== undefined;
    case "int":
      return Number.isInteger(value);
    case "count":
      return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 2 ** 53;
    case "null":
      return value === null;
    case "string":
    case "number":
    case "boolean":
      return typeof value === shape;
    default:
      return isStruct(value, STRUCTS[shape] ?? {});
  }
}

function isStruct(value: unknown, fields: Record<string, Shape>): boolean {
  if (!isObject(value)) return false;
  for (const key in fields) {
    const optional = key.endsWith("?");
    const found = value[optional ? key.slice(0, -1) : key];
    if (found === undefined ? !optional : !is(found, fields[key] as Shape)) return false;
  }
  return true;
}
