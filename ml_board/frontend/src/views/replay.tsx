// The slider over the log, on every page of a grid search: go back in time, play it again, return.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { live, seek } from "../state/board";
import * as format from "../state/format";
import { theme } from "../state/preferences";
import { choose } from "../state/route";
import type { Session } from "../state/session";
import type { Timeline } from "../wire/answers";
import { useKeys } from "./keys";
import { useSession, useSize } from "./parts";

const SPEEDS = [1, 10, 100, 1000];
/** What is marked above the slider: how tall, and in which colour. */
const MARKS: Record<string, { height: number; colour: string }> = {
  started: { height: 6, colour: "--busy" },
  running: { height: 4, colour: "--busy" },
  checkpoint: { height: 3, colour: "--line-strong" },
  done: { height: 5, colour: "--good" },
  ended: { height: 9, colour: "--good" },
  stopped: { height: 6, colour: "--warn" },
  warning: { height: 7, colour: "--warn" },
  nondeterminism: { height: 7, colour: "--warn" },
  lost: { height: 9, colour: "--bad" },
  failed: { height: 9, colour: "--bad" },
};

/** Say that this is the past, and how to return. */
export function ReplayBanner({ session }: { session: Session }): JSX.Element | null {
  useSession(session);
  if (!session.replay.value) return null;
  return (
    <section class="replay-banner" aria-label="replay">
      <strong>Replay</strong>
      <span>
        as of event {format.count(session.state.seq)}, {format.time(session.state.time)}. Nothing can be changed here.
      </span>
      <button type="button" onClick={live}>
        back to {session.rest.file ? "the end" : "live"}
      </button>
    </section>
  );
}

export function ReplayBar({ session }: { session: Session }): JSX.Element {
  useSession(session);
  const replay = session.replay.value;
  const head = Math.max(session.head.value, session.state.seq);
  const [speed, setSpeed] = useState(10);
  const timeline = useTimeline(session, head);

  const pause = (): void => {
    session.pause();
    session.sought = session.state.seq;
    choose({ at: `${session.state.seq}` });
  };
  const toggle = (): void => {
    if (replay?.playing) pause();
    else if (replay) session.play(speed);
    else seek(1);
  };
  const step = async (direction: 1 | -1): Promise<void> => {
    await session.step(direction);
    choose({ at: `${session.sought}` });
  };
  // At the end it stops by itself, and the address has to say where.
  const playing = replay?.playing ?? false;
  const played = useRef(false);
  useEffect(() => {
    if (played.current && !playing && session.replay.peek()) choose({ at: `${session.sought}` });
    played.current = playing;
  }, [playing]);
  useKeys([
    { keys: "Space", what: replay ? "play or pause" : "replay from the start", run: toggle },
    ...(session.state.seq > 0 ? [{ keys: ",", what: "one event back", run: () => void step(-1) }] : []),
    ...(replay && session.state.seq < head ? [{ keys: ".", what: "one event on", run: () => void step(1) }] : []),
    ...(replay ? [{ keys: "Escape", what: session.rest.file ? "back to the end" : "back to live", run: live }] : []),
  ]);
  return (
    <footer class="replay" aria-label="replay">
      <button type="button" onClick={toggle} title="Space" aria-label={replay?.playing ? "pause" : replay ? "play" : "replay from the start"}>
        {replay?.playing ? "❚❚" : "▶"}
      </button>
      <button type="button" class="plain" onClick={() => void step(-1)} title="one event back: ," aria-label="one event back" disabled={session.state.seq <= 0}>
        ◂
      </button>
      <button type="button" class="plain" onClick={() => void step(1)} title="one event on: ." aria-label="one event on" disabled={!replay || session.state.seq >= head}>
        ▸
      </button>
      <select
        aria-label="speed"
        value={`${speed}`}
        onChange={(event) => {
          const chosen = Number(event.currentTarget.value);
          setSpeed(chosen);
          if (replay?.playing) session.play(chosen);
        }}
      >
        {SPEEDS.map((one) => (
          <option key={one} value={`${one}`}>
            ×{one}
          </option>
        ))}
      </select>
      <div class="slider">
        <Marks timeline={timeline} head={head} />
        <input
          type="range"
          min={0}
          max={head}
          value={session.state.seq}
          aria-label="event"
          aria-valuetext={`event ${session.state.seq} of ${head}`}
          onInput={(event) => seek(Number(event.currentTarget.value))}
        />
      </div>
      <span class="small muted">
        {format.count(session.state.seq)} / {format.count(head)}
      </span>
      <button type="button" onClick={live} disabled={!replay}>
        {session.rest.file ? "end" : "live"}
      </button>
    </footer>
  );
}

/** The marks; asked for anew when the log has grown by a tenth. */
function useTimeline(session: Session, head: number): Timeline | null {
  const [timeline, setTimeline] = useState<Timeline | null>(null);
  const stale = head > 0 && (timeline === null || timeline.seq > head || head > 1.1 * timeline.seq + 20);
  useEffect(() => {
    if (!stale) return undefined;
    let current = true;
    const ask = (): void => {
      session.rest.timeline(session.id).then(
        (found) => current && setTimeline(found),
        () => undefined, // the slider works without marks, and the next growth asks again
      );
    };
    const timer = setTimeout(ask, timeline === null ? 0 : 1000);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [session, stale]);
  return timeline;
}

function Marks({ timeline, head }: { timeline: Timeline | null; head: number }): JSX.Element {
  const [ref, { width, height }] = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const shade = theme.value;
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !width) return;
    const scale = window.devicePixelRatio || 1;
    context.canvas.width = width * scale;
    context.canvas.height = height * scale;
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const marks = timeline?.marks;
    if (!marks) return;
    // The knob of a slider is some 16 px wide, so its ends are not those of the track.
    const place = (seq: number): number => 8 + (seq / Math.max(1, head)) * (width - 16);
    // What matters most is drawn last.
    const order = Object.keys(MARKS);
    const drawn = marks.kinds.map((kind, i) => ({ kind, seq: marks.seqs[i] as number }));
    drawn.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
    for (const { kind, seq } of drawn) {
      const mark = MARKS[kind];
      if (!mark) continue;
      context.fillStyle = style.getPropertyValue(mark.colour);
      context.fillRect(Math.round(place(seq)) - 0.5, 10 - mark.height, kind === "checkpoint" ? 1 : 1.5, mark.height);
    }
  }, [timeline, width, height, head, shade]);
  return (
    <div ref={ref} class="marks">
      <canvas ref={canvas} aria-hidden="true" />
    </div>
  );
}
