// A long list in a box that scrolls: rows of one height, of which only those in sight are in the tree.

import type { ComponentChildren, JSX, RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { PRINTED, printing, useSize } from "./parts";
import "./window.css";

const TALLEST = 15_000_000; // px: browsers end at 17 million. What is longer scrolls by more than one row a row.

export interface Window {
  ref: RefObject<HTMLDivElement | null>;
  height: number;
  /** The rows in sight: from `first` to before `end`. */
  first: number;
  end: number;
  /** How many there is room for. */
  fit: number;
  /** Whether the end is in sight, and stays there when rows come. */
  following: boolean;
  onScroll: () => void;
  /** Scroll so that a row is in sight, unless it is; whether that could be done already. */
  show: (row: number) => boolean;
  /** Rows have come before those in sight, which stay there. */
  shift: (rows: number) => void;
}

/** `row`: height of one in px, as of the heading. `follow`: stay at the end while the user does not scroll. */
export function useWindow(count: number, row: number, follow = false): Window {
  const [ref, size] = useSize<HTMLDivElement>();
  const [top, setTop] = useState(0);
  const stuck = useRef(follow);
  const shifted = useRef(0);
  const fit = Math.max(1, Math.floor(size.height / row) - 1);
  const height = Math.min(TALLEST, (count + 1) * row);
  const range = Math.max(0, height - size.height);
  const last = Math.max(0, count - fit);
  const first = printing.value ? 0 : stuck.current ? last : range && Math.min(last, Math.round((top / range) * last));
  useLayoutEffect(() => {
    const box = ref.current;
    if (!box) return;
    if (stuck.current) box.scrollTop = height;
    else if (shifted.current) box.scrollTop += shifted.current;
    shifted.current = 0;
  }, [height, size.height]);
  return {
    ref,
    height,
    first,
    fit,
    end: printing.value ? Math.min(count, PRINTED) : Math.min(count, first + fit),
    following: stuck.current,
    onScroll: () => {
      const box = ref.current;
      if (!box) return;
      stuck.current = follow && box.scrollTop >= box.scrollHeight - box.clientHeight - row / 2;
      setTop(box.scrollTop);
    },
    show: (wanted) => {
      const box = ref.current;
      if (!box || !size.height) return false;
      if (wanted >= first && wanted < first + fit) return true;
      stuck.current = false;
      box.scrollTop = last && (Math.max(0, Math.min(last, wanted - (fit >> 1))) / last) * range;
      setTop(box.scrollTop);
      return true;
    },
    shift: (rows) => (shifted.current += rows * row),
  };
}

/** The box with its table. Rows bring `aria-rowindex` themselves: the heading is row 1. */
export function WindowTable(props: { of: Window; label: string; count: number; class: string; head: JSX.Element; children: ComponentChildren }): JSX.Element {
  const { ref, height, onScroll } = props.of;
  return (
    <div ref={ref} class={`window ${props.class}`} tabIndex={0} role="region" aria-label={props.label} onScroll={onScroll}>
      <div style={{ height: `${height}px` }}>
        <table aria-rowcount={props.count + 1}>
          <thead>{props.head}</thead>
          <tbody>{props.children}</tbody>
        </table>
      </div>
    </div>
  );
}
