// The frame: header, page, replay; and what stands in for a page that cannot be shown.

import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { bring, locked, rest, session as open } from "../state/board";
import { prefer, theme } from "../state/preferences";
import { go, link, type Page, PAGES, route } from "../state/route";
import type { Session } from "../state/session";
import { Connection } from "./connection";
import { activeKeys, useKeys } from "./keys";
import { Dialog, Empty, Status, useSession } from "./parts";
import { ReplayBanner, ReplayBar } from "./replay";
import "./print.css";

type View = (props: { session: Session }) => JSX.Element;

/** Each page is a script of its own, so that the one that is open need not wait for the others. */
const VIEWS: Record<Page, () => Promise<View>> = {
  grids: async () => (await import("./grids")).GridsView,
  analysis: async () => (await import("./analysis")).AnalysisView,
  sweep: async () => (await import("./sweep")).SweepView,
  compare: async () => (await import("./compare")).CompareView,
  experiment: async () => (await import("./experiment")).ExperimentView,
  events: async () => (await import("./events")).EventsView,
  settings: async () => (await import("./settings")).SettingsView,
};
/** As the document has it: in one file there is no other. */
const ICON = document.querySelector("link[rel=icon]")?.getAttribute("href") ?? "";
const LETTERS = { analysis: "a", sweep: "s", compare: "c", experiment: "x", events: "e", settings: "o" };
const loaded = signal<Partial<Record<Page, View | Error>>>({});

async function load(page: Page): Promise<void> {
  if (loaded.peek()[page] && !(loaded.peek()[page] instanceof Error)) return;
  const view = await VIEWS[page]().catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
  loaded.value = { ...loaded.value, [page]: view };
}

/** The others follow when there is time: then they open at once, also when the board has ended by then. */
export async function loadAll(): Promise<void> {
  for (const page of ["grids", ...PAGES] as const) await load(page);
}

export function App(): JSX.Element {
  const helping = useSignal(false);
  const session = open.value;
  const { id, page } = route.value;
  const keys = useMemo(
    () => [
      { keys: "?", what: "this help", run: () => (helping.value = true) },
      { keys: "g g", what: "all grid searches", run: () => go("#/") },
      ...PAGES.filter((name) => id !== null || name === "settings").map((name) => ({
        keys: `g ${LETTERS[name]}`,
        what: name,
        run: () => go(id === null ? "#/settings" : link(name)),
      })),
      { keys: "t", what: "dark or light", run: () => prefer({ theme: theme.value === "dark" ? "light" : "dark" }) },
    ],
    [id],
  );
  useKeys(keys);
  // What had the focus is gone with its page: the next Tab begins where the new one does.
  const shown = useRef(page);
  useEffect(() => {
    if (shown.current !== page) document.querySelector("main")?.focus({ preventScroll: true });
    shown.current = page;
  }, [page]);
  document.title = id === null ? "ml_board" : `${id} · ml_board`;
  return (
    <>
      <header class="top">
        <a class="brand" href="#/">
          <img src={ICON} width="18" height="18" alt="" />
          ml_board
        </a>
        {id !== null && <strong class="id clip">{id}</strong>}
        {session && <GridStatus session={session} />}
        <nav class="pages" aria-label="pages">
          {id === null ? (
            <>
              <NavLink href="#/" current={page === "grids"} name="grid searches" />
              <NavLink href="#/settings" current={page === "settings"} name="settings" />
            </>
          ) : (
            PAGES.map((name) => <NavLink key={name} href={link(name)} current={name === page} name={name} />)
          )}
        </nav>
        {session && <Connection session={session} />}
        <button type="button" class="plain" title="keys: ?" aria-label="help" onClick={() => (helping.value = true)}>
          ?
        </button>
      </header>
      {rest.value.file?.thinned && <p class="notice warned one-file">{rest.value.file.thinned}</p>}
      {session && <ReplayBanner session={session} />}
      <main tabIndex={-1}>
        <Body session={session} />
      </main>
      {session && <ReplayBar session={session} />}
      {helping.value && <Help close={() => (helping.value = false)} />}
    </>
  );
}

function NavLink({ href, current, name }: { href: string; current: boolean; name: string }): JSX.Element {
  return (
    <a href={href} aria-current={current ? "page" : undefined}>
      {name}
    </a>
  );
}

function GridStatus({ session }: { session: Session }): JSX.Element | null {
  useSession(session);
  if (session.dead.value && !session.replay.value) return <Status of="INTERRUPTED" note="no process runs it" />;
  return session.state.status ? <Status of={session.state.status} /> : null;
}

function Body({ session }: { session: Session | null }): JSX.Element | null {
  const page = session || route.value.page === "settings" ? route.value.page : "grids";
  const View = loaded.value[page];
  useEffect(() => void load(page), [page]);
  // Settings stay in reach: they lead back from a board whose token nobody has here.
  if (locked.value && page !== "settings") return <Locked whole />;
  if (!View) return null;
  if (View instanceof Error) {
    return (
      <Empty whole title="This part of the page could not be loaded">
        <p>{View.message}</p>
        <button type="button" onClick={() => window.location.reload()}>
          reload
        </button>
      </Empty>
    );
  }
  // The two pages that are about no grid search in particular take no notice of one.
  if (!session || page === "settings") {
    return (
      <>
        {locked.value && <Locked whole={false} />}
        <View session={session as Session} />
      </>
    );
  }
  return <Ready key={session.id} session={session} view={View} />;
}

/** A page of a grid search, or why there is nothing to see yet. */
function Ready({ session, view: View }: { session: Session; view: View }): JSX.Element {
  useSession(session);
  const connection = session.connection.value;
  if (session.ready.value) return <View session={session} />;
  if (connection.kind === "absent") {
    return (
      <Empty whole title="This cannot be shown">
        <p>{connection.why}</p>
        <a class="button" href="#/">
          all grid searches
        </a>
      </Empty>
    );
  }
  if (connection.kind === "lost") {
    return (
      <Empty whole title="The board does not answer">
        <p>
          {connection.why}. The page tries again by itself. If the board was stopped, start it again:
        </p>
        <pre>ml_board --event_storage_path event_storage</pre>
        <p class="muted">A run that shows its own dashboard ends it with the run.</p>
      </Empty>
    );
  }
  return <p class="muted">connecting …</p>;
}

function Locked({ whole }: { whole: boolean }): JSX.Element {
  const [wrong, setWrong] = useState("");
  return (
    <Empty whole={whole} title="This board asks for its token">
      {rest.value.base && <p>It is the one at {rest.value.base}.</p>}
      <p>
        It is part of the address that the run, or <code>ml_board</code>, has printed; and it stands in{" "}
        <code>~/.config/mlgym/board_token</code> on the machine that the board runs on.
      </p>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          const token = new FormData(event.currentTarget).get("token");
          bring(`${token}`).then(
            (taken) => setWrong(taken ? "" : "That is not the token of this board."),
            (error: unknown) => setWrong(error instanceof Error ? error.message : String(error)),
          );
        }}
      >
        <input type="password" name="token" aria-label="token" autocomplete="off" required />
        <button type="submit" class="primary">
          open
        </button>
      </form>
      {wrong && (
        <p class="bad" role="alert">
          {wrong}
        </p>
      )}
    </Empty>
  );
}

function Help({ close }: { close: () => void }): JSX.Element {
  const keys = activeKeys();
  return (
    <Dialog title="Keys" close={close}>
      <div class="keys">
        {keys.map(({ keys: names, what }) => (
          <>
            <span>
              {names.split(" ").map((name) => (
                <kbd key={name}>{name}</kbd>
              ))}
            </span>
            <span>{what}</span>
          </>
        ))}
      </div>
    </Dialog>
  );
}
