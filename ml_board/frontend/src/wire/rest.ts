// Requests to the board's REST half. Nothing is asked of any other machine.

import type {
  About,
  Card,
  Endpoints,
  EpochRule,
  EventPage,
  ExperimentDetail,
  Listed,
  Output,
  Report,
  Rows,
  SeriesAnswer,
  Summary,
  Timeline,
} from "./answers";

/** A request that the board refused, or that did not reach it (`status` 0). */
export class RestError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

type Parameters = Record<string, string | number | readonly (string | number)[] | null | undefined>;

export class Rest {
  /** What the page knows of itself when it is one file with all data inside; null: there is a board. */
  readonly file: About | null = null;

  /** `base`: where the board is, without a slash at the end; empty for where the page came from. */
  constructor(readonly base: string) {}

  /** The address of `path`, to be linked to. */
  url(path: string, parameters: Parameters = {}): string {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(parameters)) {
      if (value === null || value === undefined) continue;
      for (const one of Array.isArray(value) ? value : [value]) query.append(key, `${one}`);
    }
    const text = query.toString();
    return `${this.base}${path}${text && `?${text}`}`;
  }

  async text(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<string> {
    return (await this.ask("GET", this.url(path, parameters), signal)).text();
  }

  private async json<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
    return (await this.ask("GET", this.url(path, parameters), signal)).json() as Promise<T>;
  }

  protected async ask(method: string, url: string, signal?: AbortSignal, headers: Record<string, string> = {}): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(url, { method, headers, credentials: "include", ...(signal && { signal }) });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new RestError(0, "the board does not answer");
    }
    if (answer.ok) return answer;
    let message = answer.statusText;
    try {
      message = ((await answer.json()) as { error: { message: string } }).error.message;
    } catch {
      // no answer of the board's: what stands between says nothing better than its status
    }
    throw new RestError(answer.status, message);
  }

  /** From now on the browser needs no token. */
  async session(token: string): Promise<void> {
    await this.ask("POST", this.url("/session"), undefined, { Authorization: `Bearer ${token}` });
  }

  gridSearches = (): Promise<Listed[]> => this.json("/grid_searches");

  summary = (id: string, signal?: AbortSignal): Promise<Summary> => this.json(`/grid_searches/${id}/summary`, {}, signal);

  rows = (id: string, at?: number, signal?: AbortSignal): Promise<Rows> =>
    this.json(`/grid_searches/${id}/snapshot`, { scores: "summary", at }, signal);

  experiment = (id: string, experiment: number, at?: number): Promise<ExperimentDetail> =>
    this.json(`/grid_searches/${id}/experiments/${experiment}`, { at });

  series = (
    id: string,
    experiments: readonly number[],
    scores: readonly string[],
    also: { at?: number | undefined; first?: number; last?: number; points?: number },
    signal?: AbortSignal,
  ): Promise<SeriesAnswer> =>
    this.json(`/grid_searches/${id}/series`, { experiments: ranges(experiments), score: scores, ...also }, signal);

  timeline = (id: string, points = 1000): Promise<Timeline> => this.json(`/grid_searches/${id}/timeline`, { points });

  report = (id: string, which: { metric: string | null; epoch: EpochRule | null; at?: number | undefined }, signal?: AbortSignal): Promise<Report> =>
    this.json(`/grid_searches/${id}/report`, which, signal);

  events = (
    id: string,
    which: { after?: number; before?: number | undefined; limit?: number; type?: readonly string[]; experiment?: number | undefined },
    signal?: AbortSignal,
  ): Promise<EventPage> => this.json(`/grid_searches/${id}/events`, which, signal);

  output = (id: string, experiment: number, offset: number, signal?: AbortSignal): Promise<Output> =>
    this.json(`/grid_searches/${id}/${experiment}/output`, { offset }, signal);

  /** The text of a configuration, as it was written. */
  config = (id: string, name: string): Promise<string> => this.text(`/grid_searches/${id}/${name}`);

  experimentConfig = async (id: string, experiment: number): Promise<unknown> =>
    this.json(`/grid_searches/${id}/${experiment}/experiment_config`);

  /** The text of a `Pipeline`: numbers in its configurations are shown as they are written. */
  pipeline = (id: string, experiment: number): Promise<string> => this.text(`/grid_searches/${id}/${experiment}/pipeline`);

  systemInfo = async (id: string, experiment: number): Promise<unknown> => this.json(`/system-info/${id}/${experiment}`);

  /** As data; the other forms are files, at `cardUrl`. */
  card = (id: string, experiment: number, at?: number): Promise<Card> => this.json(`/model-card/${id}/${experiment}`, { at });

  cardUrl = (id: string, experiment: number, format: string, at?: number): string => this.url(`/model-card/${id}/${experiment}`, { format, at });

  manifest = (id: string, experiment: number, epoch: number): Promise<{ files: { name: string; size: number; sha256: string }[] }> =>
    this.json(`/checkpoints/${id}/${experiment}/${epoch}`);

  /** Where the whole grid search is to be had as one file. */
  exportUrl = (id: string): string => this.url(`/grid_searches/${id}/export`);

  fileUrl = (id: string, experiment: number, epoch: number, name: string): string =>
    this.url(`/checkpoints/${id}/${experiment}/${epoch}/${encodeURIComponent(name)}`);

  deleteCheckpoint = async (id: string, experiment: number, epoch: number): Promise<void> => {
    await this.ask("DELETE", this.url(`/checkpoints/${id}/${experiment}/${epoch}`));
  };
}

/** What the page is told by where it came from. */
export async function endpoints(): Promise<Endpoints> {
  return (await fetch("endpoints.json")).json() as Promise<Endpoints>;
}

/** `1-3,7` for 1, 2, 3 and 7. */
export function ranges(numbers: readonly number[]): string {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const found: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let j = i;
    while (sorted[j + 1] === (sorted[j] as number) + 1) j++;
    found.push(i === j ? `${sorted[i]}` : `${sorted[i]}-${sorted[j]}`);
    i = j + 1;
  }
  return found.join(",");
}

/** The numbers of `ranges`; what is none is passed over. */
export function unranged(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const match = /^(\d{1,15})(?:-(\d{1,15}))?$/.exec(part);
    if (!match) return [];
    const first = Number(match[1]);
    const last = Math.min(Number(match[2] ?? first), first + 100_000);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  });
}
