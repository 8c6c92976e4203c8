// JSON data as readable YAML, which YAML 1.1 (PyYAML) and 1.2 (mlgym) read back as the same data. Pure.

/** A number in words that JavaScript would write otherwise: `1.0`, `1e-05`, 2^63. */
export class Exact {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

/** The data of a JSON text, numbers as they were written there; browsers that cannot tell give plain ones. */
export function exact(json: string): unknown {
  return JSON.parse(json, ((_: string, value: unknown, context?: { source?: string }) => {
    const source = context?.source;
    return typeof value === "number" && source && source !== `${value}` ? new Exact(source) : value;
  }) as (key: string, value: unknown) => unknown);
}

/** As JSON again. Browsers that tell how a number is written can also write it so. */
export function json(value: unknown): string {
  const { rawJSON } = JSON as unknown as { rawJSON?: (text: string) => unknown };
  return JSON.stringify(value, (_, one: unknown) => (one instanceof Exact ? (rawJSON?.(one.text) ?? Number(one.text)) : one), 2);
}

/** Whether it consists of parts. */
export function isTree(value: unknown): value is object {
  return typeof value === "object" && value !== null && !(value instanceof Exact);
}

export function yaml(value: unknown): string {
  return `${after(value, "").replace(/^\s/, "")}\n`;
}

/** What comes after a colon or a dash. `pad` is where a value of several lines stands. */
function after(value: unknown, pad: string, dash = false): string {
  const text = flow(value, pad);
  if (text !== null) return ` ${text}`;
  const inner = `${pad}  `;
  const lines = Array.isArray(value)
    ? value.map((one) => `${pad}-${after(one, inner, true)}`)
    : Object.entries(value as object).map(([key, one]) => {
        const name = string(key);
        // A key may have 1024 characters, unless it is announced.
        return `${pad}${name.length > 1000 ? `? ${name}\n${pad}` : name}:${after(one, inner)}`;
      });
  return dash ? ` ${lines.join("\n").slice(pad.length)}` : `\n${lines.join("\n")}`;
}

/** A value on one line, or the text of several; null: it has to be laid out. */
function flow(value: unknown, pad: string): string | null {
  if (typeof value === "string") return literal(value, pad || "  ") ?? string(value);
  if (!isTree(value)) return number(String(value));
  if (!Array.isArray(value)) return Object.keys(value).length ? null : "{}";
  if (value.some(isTree)) return null;
  const text = `[${value.map((one) => (typeof one === "string" ? string(one) : number(String(one)))).join(", ")}]`;
  return text.length > 80 && value.length > 1 ? null : text;
}

/** YAML 1.1 wants a point and a sign in what has an exponent: 1e-05 is a string there. */
function number(text: string): string {
  return text.replace(/^(-?\d+)(\.\d+)?e([+-]?)/i, (_, whole, fraction = ".0", sign) => `${whole}${fraction}e${sign || "+"}`);
}

/** Text of several lines, as it is. */
function literal(text: string, pad: string): string | null {
  if (!/^[^\s][^]*\n/.test(text) || /[^\n -~\xa1-\ud7ff\ue000-\ufefe\uff00-\ufffd]|[\u2028\u2029]|\n[ \n]*\n$|\n +$/.test(text)) return null;
  const ended = text.endsWith("\n");
  const lines = (ended ? text.slice(0, -1) : text).split("\n");
  return `|${ended ? "" : "-"}\n${lines.map((line) => line && pad + line).join("\n")}`;
}

const WORDS = /^(y|n|yes|no|on|off|true|false|null)$/i;

/** A string on one line: bare where no reader could take it for anything else. */
function string(text: string): string {
  if (/^[\p{L}_/]([\p{L}\p{N}_ ./+@-]*[\p{L}\p{N}_./+@-])?$/u.test(text) && !WORDS.test(text)) return text;
  return JSON.stringify(text).replace(/[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
