/** The box of the lanes: a canvas beside the names of its rows, of which only the visible ones are made. */
import type { JSX, RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, type Page } from "./api";
import { shortName, type Row } from "./fleet_rows";
import { timeText } from "./format";
import type { Anomaly } from "./incident";
import { coloursOf, drawLanes, place, ROW, type Colours, type Span } from "./lanes";
import { Link, plain, SEVERITIES, SeverityMark } from "./parts";
import { go, seriesAddress } from "./route";

interface Tip { x: number; y: number; span: Span }

/** The anomaly of a span: lanes carry neither ids nor sentences, of which there are thousands. */
const details = new Map<string, Promise<Anomaly | undefined>>();
export function detailOf(span: Span): Promise<Anomaly | undefined> {
  const key = `${span.stream}\u0000${span.series}\u0000${span.from}\u0000${span.open}`;
  let found = details.get(key);
  if (!found) {
    if (details.size > 500) details.clear();
    // The list is of what was flagged, which may begin long after the deviation: the whole span is asked for.
    const from = new Date(span.from).toISOString(), to = span.open ? null : new Date(span.to + 1).toISOString();
    found = get<Page<Anomaly>>("anomalies", { stream: span.stream, series: span.series, from, to, limit: 50 })
      .then(({ items }) => items.find((one) => one.series === span.series && Math.floor(Date.parse(one.start)) === span.from), () => undefined);
    details.set(key, found);
  }
  return found;
}

function TipBox({ tip }: { tip: Tip }): JSX.Element {
  const { span } = tip;
  const [text, setText] = useState("");
  useEffect(() => {
    let gone = false;
    setText("");
    const timer = window.setTimeout(() => { if (!span.label) void detailOf(span).then((found) => { if (!gone) setText(found?.text ?? ""); }); }, 80);
    return () => { gone = true; window.clearTimeout(timer); };
  }, [span]);
  return <div class="tip" style={{ left: `${tip.x}px`, top: `${tip.y}px` }}>{span.label ? <bdi>{span.label}</bdi>
    : <><SeverityMark severity={SEVERITIES[span.severity]!} />{span.open ? ", open" : ""}, {timeText(span.from)}<br /><bdi>{plain(span.series ?? "")}</bdi><br /><bdi>{text || "…"}</bdi></>}</div>;
}

const narrow = window.matchMedia("(max-width: 700px)");

/** Names of the rows from `first` to `last`; they are made again only if these change. */
function names(rows: Row[], first: number, last: number): JSX.Element {
  return <ul class="names">{rows.slice(first, last).map((row, n) =>
    <li key={row.key} class={row.kind} style={{ top: `${(first + n) * ROW}px` }}>{
      row.kind === "series"
        ? <Link to={seriesAddress(row.stream, row.series!)} data-row title={plain(row.series!)} aria-label={`${plain(row.series!)}: ${row.text}`}>
          {row.worst >= 0 ? <SeverityMark severity={SEVERITIES[row.worst % 10]!} text={false} /> : <span class="quiet-mark" aria-hidden="true">·</span>}<bdi>{plain(narrow.matches ? shortName(row.series!) : row.series!)}</bdi></Link>
        : row.kind === "group"
          ? <Link to={row.to!} data-row title={plain(`${row.series!}: ${row.text}`)}><b><bdi>{plain(row.series!) || "(no value)"}</bdi></b> <span class="muted">{row.text}</span></Link>
        : row.kind === "stream"
          ? <Link to={`/models?stream=${encodeURIComponent(row.stream)}`} data-row title={row.text}><b><bdi>{row.stream}</bdi></b> <span class="muted">{row.text}</span></Link>
          : <span class={row.fault ? "fault" : "muted"} title={row.fault ?? row.text}>{row.fault ? <><span aria-hidden="true">⚠ </span>{row.fault}</> : `data: ${row.text}`}</span>
    }</li>)}</ul>;
}

/** Rows by which the window of names moves, and rows beyond it. */
const STEP = 8, BEYOND = 8;
let marked = false;

/** A canvas of lanes that follows the scrolling and the size of its box, without a layout while it scrolls. */
function useCanvas(rows: Row[]): { box: RefObject<HTMLDivElement | null>; track: RefObject<HTMLDivElement | null>; canvas: RefObject<HTMLCanvasElement | null>; step: number; onScroll: () => void; scrolled: () => number } {
  const box = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null), track = useRef<HTMLDivElement>(null);
  const [step, setStep] = useState(0);
  const colours = useRef<Colours | null>(null), latest = useRef(rows), frame = useRef(0);
  latest.current = rows;
  // Sizes are read when they change, never while scrolling: reading them after a change of the page lays it out anew.
  const seen = useRef({ top: 0, width: 0, height: 0 });
  const draw = (): void => {
    if (!canvas.current) return;
    colours.current ??= coloursOf(document.documentElement);
    if (!marked && latest.current.length) { marked = true; requestAnimationFrame(() => performance.mark("lanes")); }
    drawLanes(canvas.current, latest.current, seen.current.top, seen.current.width, seen.current.height, colours.current);
  };
  const measure = (): void => {
    if (!box.current || !track.current) return;
    seen.current = { top: box.current.scrollTop, width: track.current.clientWidth, height: box.current.clientHeight };
    draw();
  };
  useLayoutEffect(measure, [rows]);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined; // the page was left before this ran
    const redraw = (): void => { colours.current = null; measure(); };
    const watcher = new ResizeObserver(redraw);
    watcher.observe(element);
    window.addEventListener("theme", redraw);
    return () => { watcher.disconnect(); window.removeEventListener("theme", redraw); };
  }, []);
  const onScroll = (): void => {
    if (frame.current) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      if (!box.current) return;
      seen.current.top = box.current.scrollTop;
      draw();
      setStep(Math.floor(seen.current.top / ROW / STEP));
    });
  };
  return { box, track, canvas, step, onScroll, scrolled: () => box.current?.scrollTop ?? 0 };
}

/** The span of a lane nearest to a place, within some pixels. */
function nearest(lane: Row, x: number, width: number): Span | null {
  let best: Span | null = null, least = 6;
  for (const span of lane.spans) {
    const left = place(lane, span.from, width), right = Math.max(left + 4, place(lane, span.to, width));
    const far = x < left ? left - x : x > right ? x - right : 0;
    if (far < least) { least = far; best = span; }
  }
  return best;
}

export function Lanes({ rows, height }: { rows: Row[]; height: number }): JSX.Element {
  const { box, track, canvas, step, onScroll, scrolled } = useCanvas(rows);
  const [tip, setTip] = useState<Tip | null>(null);
  const hit = (event: MouseEvent): Tip | null => {
    const area = (event.currentTarget as HTMLElement).getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
    const lane = rows[Math.floor((y + scrolled()) / ROW)], span = lane && x >= 0 ? nearest(lane, x, area.width) : null;
    return span && { x: Math.max(0, Math.min(x, area.width - 260)), y: y + ROW / 2, span };
  };
  const open = (event: MouseEvent): void => {
    const page = location.href, found = hit(event);
    if (found && !found.span.label) void detailOf(found.span).then((one) => { if (one && location.href === page) go(`/anomalies/${one.id}`); });
  };
  const first = Math.max(0, step * STEP - BEYOND), last = Math.min(rows.length, (step + 1) * STEP + Math.ceil(height / ROW) + BEYOND);
  const shown = useMemo(() => names(rows, first, last), [rows, first, last]);
  return <div class="lanes" ref={box} onScroll={() => { setTip(null); onScroll(); }} role="region" aria-label="Lanes of streams and series" tabIndex={0} data-lanes={rows.length}>
    <div class="stretch" style={{ height: `${rows.length * ROW}px` }}>
      <div class="track" ref={track} onMouseMove={(event) => setTip(hit(event))} onMouseLeave={() => setTip(null)} onClick={open}>
        <canvas ref={canvas} aria-hidden="true" class={tip && !tip.span.label ? "hit" : ""} />
        {tip && <TipBox tip={tip} />}
      </div>
      {shown}
    </div>
  </div>;
}
