// When charts are drawn: what a user asked for with the next frame, what events ask for as seldom as its cost demands.

const OFTEN = 150; // ms between two drawings of a chart, at least
const REST = 8; // times as long as a chart's last drawing took, it is left alone
const SHARED = 6; // times as long as all drawings of a frame took, events draw nothing
const SLICE = 16; // ms of drawing in one frame, if it can be split

export interface Drawing {
  /** Draw sooner or later; `now`: with the next frame. */
  ask: (now?: boolean) => void;
  cancel: () => void;
}

interface Waiting {
  draw: () => void;
  now: boolean;
  /** Not before. */
  due: number;
  /** ms that it took the last time */
  cost: number;
}

const waiting = new Set<Waiting>();
let quiet = 0; // no event draws before
let timer: ReturnType<typeof setTimeout> | undefined;
let frame = 0;

export function drawing(draw: () => void): Drawing {
  const one: Waiting = { draw, now: false, due: 0, cost: 5 };
  return {
    ask(now = false) {
      if (waiting.has(one) && (one.now || !now)) return;
      one.now ||= now;
      waiting.add(one);
      plan();
    },
    cancel: () => waiting.delete(one),
  };
}

function plan(): void {
  clearTimeout(timer);
  if (frame || !waiting.size) return;
  let due = Infinity;
  for (const one of waiting) due = Math.min(due, one.now ? 0 : Math.max(one.due, quiet));
  const wait = due - performance.now();
  if (wait > 4) timer = setTimeout(plan, wait);
  else frame = requestAnimationFrame(run);
}

/** Draw what is due, what has waited longest first. */
function run(): void {
  const begin = performance.now();
  const drawn: Waiting[] = [];
  let cost = 0;
  for (const one of [...waiting]) {
    if (!one.now && (begin < one.due || begin < quiet)) continue;
    if (drawn.length && cost + one.cost > SLICE) break;
    waiting.delete(one);
    one.now = false;
    one.draw();
    drawn.push(one);
    cost += one.cost;
  }
  // A canvas only notes what it is told to draw, and draws it after this; the next task knows how long both have taken.
  setTimeout(() => {
    frame = 0;
    const end = performance.now();
    for (const one of drawn) {
      one.cost = (end - begin) / drawn.length;
      one.due = end + Math.max(OFTEN, REST * one.cost);
    }
    quiet = end + SHARED * (end - begin);
    plan();
  });
}
