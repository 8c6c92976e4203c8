// How the page stands with the board: always to be seen.

import type { JSX } from "preact";
import * as format from "../state/format";
import type { Session } from "../state/session";
import { useNow } from "./parts";

const COLOURS: Record<string, string> = {
  connecting: "var(--warn)",
  "catching up": "var(--busy)",
  live: "var(--good)",
  finished: "var(--good)",
  file: "var(--good)",
  lost: "var(--bad)",
  absent: "var(--bad)",
  replay: "var(--warn)",
};

export function Connection({ session }: { session: Session }): JSX.Element {
  const now = useNow();
  const connection = session.connection.value;
  const replay = session.replay.value;
  // Ages and seconds change without anything having happened, so only the kind is announced.
  const kind = replay && connection.kind !== "lost" ? "replay" : connection.kind;
  const heard = session.heard.value || session.state.time;
  return (
    <div class="connection row muted">
      <span class="dot" data-connection={kind}>
        <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
          {kind === "live" || kind === "finished" || kind === "file" ? (
            <circle cx="5" cy="5" r="4.5" fill={COLOURS[kind]} />
          ) : (
            <circle cx="5" cy="5" r="3.7" fill="none" stroke={COLOURS[kind]} stroke-width="1.6" />
          )}
        </svg>
        <span class="visually-hidden" role="status">
          {kind}
        </span>
        <span aria-hidden="true">
          {kind === "replay" ? "replay" : words()}
        </span>
      </span>
      {kind === "live" && <span title="events a second">{session.eventsPerSecond.value} ev/s</span>}
      {session.roundTrip.value !== null && connection.kind !== "lost" && (
        <span title="a message to the board and back">{Math.max(1, Math.round(session.roundTrip.value))} ms</span>
      )}
    </div>
  );

  function words(): string {
    switch (connection.kind) {
      case "catching up":
        return `catching up ${format.count(connection.done)} of ${format.count(connection.of)}`;
      case "live":
        return `live, last event ${format.ago(heard, now)}`;
      case "finished":
        return `finished, last event ${format.ago(session.state.time, now)}`;
      case "file":
        return `one file, made ${format.time(connection.made)}`;
      case "lost":
        return `connection lost ${format.ago(connection.since, now)}, retrying`;
      case "absent":
        return connection.why;
      default:
        return "connecting";
    }
  }
}
