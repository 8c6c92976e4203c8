// What a job has printed, followed as it grows. Old text goes when there is too much.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as format from "../state/format";
import type { Session } from "../state/session";
import { type Printed, print } from "../state/terminal";

const EVERY = 1000; // ms between two looks
const FIRST = 1_000_000; // bytes of the end that are read at first

export function OutputView({ session, experiment, running }: { session: Session; experiment: number; running: boolean }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [error, setError] = useState("");
  const [printed, setPrinted] = useState<Printed | null>(null);
  const alive = useRef(running);
  alive.current = running;
  useEffect(() => {
    const stop = new AbortController();
    let offset = -1;
    let text: Printed = { pieces: [], tail: "", cut: 0 };
    const inSight = (): boolean => {
      const place = box.current?.getBoundingClientRect();
      return document.visibilityState === "visible" && (!place || (place.top < window.innerHeight && place.bottom > 0));
    };
    const look = async (): Promise<void> => {
      const was = alive.current; // what comes after its end is nothing; what came until then is still read
      let more = false;
      let wait = EVERY;
      if (offset < 0 || inSight()) {
        try {
          if (offset < 0) {
            const { size } = await session.rest.output(session.id, experiment, Number.MAX_SAFE_INTEGER, stop.signal);
            offset = Math.max(0, size - FIRST);
            text = { pieces: [], tail: "", cut: offset };
          }
          const found = await session.rest.output(session.id, experiment, offset, stop.signal);
          if (found.offset < offset) offset = -1; // another file
          else {
            if (found.offset > offset) text = { ...text, cut: found.offset }; // one file has only the end
            if (found.text) text = print(text, found.text);
            more = found.next_offset > offset && found.next_offset < found.size; // a character may not be whole yet
            offset = found.next_offset;
          }
          setError("");
          setPrinted(text);
        } catch (problem) {
          if (stop.signal.aborted) return;
          wait *= 5;
          setError((problem as Error).message);
        }
      }
      if (!stop.signal.aborted && (more || was || offset < 0)) setTimeout(look, more ? 0 : wait);
    };
    void look();
    return () => stop.abort();
  }, [session, experiment, running]);
  if (!printed) return <p class={error ? "bad" : "muted"}>{error ? `${error}; trying again` : "reading …"}</p>;
  return (
    <>
      {session.replay.value && !session.rest.file && <p class="muted">This is what it has printed until now: output is not replayed.</p>}
      {error && <p class="bad">{error}; trying again</p>}
      {printed.cut > 0 && (
        <p class="muted small">
          The first {format.bytes(printed.cut)} are not {session.rest.file ? "in this file" : "shown"}; all of it is in <code>{session.id}/{experiment}/output.log</code>.
        </p>
      )}
      {!printed.tail && !printed.pieces.length ? (
        <p class="muted">It has printed nothing{running ? " yet" : ""}.</p>
      ) : (
        <div ref={box} class="output mono" tabIndex={0} role="region" aria-label="output">
          <div>
            {printed.pieces.map((piece, i) => (
              <div key={i}>{piece}</div>
            ))}
            <div>{printed.tail}</div>
          </div>
        </div>
      )}
    </>
  );
}
