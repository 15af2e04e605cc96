/** Fleet: lanes of all streams and series, the worst first, with the health of their data. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, useView, type Page } from "./api";
import { ageText, countOf, countText, durationText, numberText, timeText } from "./format";
import type { Anomaly } from "./incident";
import { coloursOf, drawLanes, place, ROW, type Colours, type Lane, type Span } from "./lanes";
import { Empty, Link, Name, plain, SEVERITIES, SeverityMark, Shown, When } from "./parts";
import { go, seriesAddress, setQuery } from "./route";

interface StreamView {
  name: string; labels: string[]; latest_ms: number | null; behind_ms: number | null; partitions: number; records: number; buffered: number;
  late: number; dead_lettered: number; updated_ms: number | null;
  faults: { kind: string; message: string; start_ms: number; end_ms: number | null }[];
  lanes: { series: string[]; labels: Record<string, string>[]; of: number[]; severity: number[]; start_ms: number[]; end_ms: number[]; open: number[] };
}
interface Gap { from_ms: number; to_ms: number }
/** Gaps of each stream: times in which none of its series has a record. */
type Gaps = Record<string, Gap[]>;
type Names = Record<string, { names: string[]; count: number }>;
interface Fleet {
  now_ms: number; span_ms: number; streams: StreamView[]; left_out: number;
  tiles: { records_per_second: number | null; open_anomalies: number; open_alerts: number; messages_today: number; pages_today: number; budget: number | null;
    deliveries_waiting: number; open_faults: number; dead_letters: number; daemon_ms: number | null };
}

const RANGES: [string, string][] = [["1h", "1 hour"], ["6h", "6 hours"], ["24h", "1 day"], ["7d", "7 days"], ["30d", "30 days"], ["365d", "1 year"]];

interface Row extends Lane { stream: string; series: string | null; worst: number; count: number; newest: number; text: string; fault?: string; labels?: Record<string, string> | undefined; to?: string }

const NO_SPANS: Span[] = [];
const SHOWN_OPEN = 5, SHOWN_ENDED = 3;

function matches(filter: string, stream: string, series: string, labels: Record<string, string> | undefined): boolean {
  if (!filter) return true;
  return filter.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const equals = word.indexOf("=");
    if (equals > 0) {
      const name = word.slice(0, equals), wanted = word.slice(equals + 1);
      const value = name === "stream" ? stream : name === "series" ? series : Object.entries(labels ?? {}).find(([key]) => key.toLowerCase() === name)?.[1] ?? "";
      return value.toLowerCase().includes(wanted);
    }
    return stream.toLowerCase().includes(word) || series.toLowerCase().includes(word);
  });
}

/** Labels of a series by its name: `site=b2,sensor=t1`, or only the value if there is one label. */
export function labelsOf(fields: string[], name: string): Record<string, string> {
  if (fields.length === 1) return { [fields[0]!]: name };
  return Object.fromEntries([...name.matchAll(/((?:\\.|[^\\,=])*)=((?:\\.|[^\\,=])*),?/g)].map((part) => [part[1]!, part[2]!.replaceAll(/\\(.)/g, "$1")]));
}

/** Rows of one stream: first the series with open and severe anomalies, then those without any. */
function seriesRows(stream: StreamView, names: string[], filter: string, now: number, span: number, withLabels: boolean): Row[] {
  const until = stream.latest_ms ?? now, from = until - span;
  const { series, labels, of, severity, start_ms, end_ms, open } = stream.lanes;
  const found: Row[] = series.map((name, at) => ({ kind: "series", labels: labels[at], key: `${stream.name}\u0000${name}`, from, until, spans: [], stream: stream.name, series: name, worst: -1, count: 0, text: "", newest: 0 }));
  for (let at = 0; at < of.length; at++) {
    const row = found[of[at]!]!, isOpen = open[at] === 1;
    row.spans.push({ from: start_ms[at]!, to: isOpen ? until : end_ms[at]!, severity: severity[at]!, open: isOpen, stream: stream.name, series: row.series });
    row.worst = Math.max(row.worst, severity[at]! + (isOpen ? 10 : 0));
    row.newest = Math.max(row.newest, start_ms[at]!);
    row.count++;
  }
  for (const row of found) row.text = worstText(row);
  const kept = found.filter((row, at) => matches(filter, stream.name, row.series!, labels[at]));
  kept.sort((one, other) => other.worst - one.worst || other.newest - one.newest || (one.series! < other.series! ? -1 : 1));
  const known = new Set(series);
  for (const name of names) {
    const of_name = withLabels || filter.includes("=") ? labelsOf(stream.labels, name) : undefined;
    if (known.has(name) || !matches(filter, stream.name, name, of_name)) continue;
    kept.push({ kind: "series", labels: of_name, key: `${stream.name}\u0000${name}`, from, until, spans: NO_SPANS, stream: stream.name, series: name, worst: -1, count: 0, text: "no anomaly", newest: 0 });
  }
  return kept;
}

/** Spans of rows; the worst ones are drawn last, over the others. */
function spansOf(rows: Row[]): Span[] {
  return rows.flatMap((row) => row.spans).sort((one, other) => one.severity - other.severity);
}

/** Series of a stream with one label are groups already. */
function isGrouped(stream: StreamView, label: string): boolean {
  return stream.labels.length > 1 && stream.labels.includes(label);
}

function worstText(row: Row): string {
  return `${countOf(row.count, "anomaly", "anomalies")}, worst ${SEVERITIES[row.worst % 10]!}${row.worst >= 10 ? ", open" : ""}`;
}

/** The rows with one before each group of series that have the same label, the worst group first. */
function groupedRows(rows: Row[], label: string): Row[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const value = row.labels?.[label] ?? "", group = groups.get(value);
    if (group) group.push(row); else groups.set(value, [row]);
  }
  // The rows are sorted, and so are the groups by their first ones.
  return [...groups].flatMap(([value, members]) => {
    const query = new URLSearchParams(location.search), first = members[0]!;
    query.set("filter", `${label}=${value}`);
    const row: Row = { ...first, kind: "group", key: `${first.stream}\u0001${value}`, series: value, spans: spansOf(members), count: members.reduce((sum, one) => sum + one.count, 0), to: `/?${query.toString()}`, text: "" };
    row.text = `${countText(members.length)} series${row.worst >= 0 ? `, ${worstText(row)}` : ""}`;
    return [row, ...members];
  });
}

/** Gaps of a stream as spans of its lane, and in words. */
function gapsOf(stream: StreamView, gaps: Gap[], from: number): { spans: Span[]; text: string } {
  const shown = gaps.filter((one) => one.to_ms >= from);
  const longest = Math.max(...shown.map((one) => one.to_ms - one.from_ms));
  return {
    spans: shown.map((one) => ({ from: one.from_ms, to: one.to_ms, severity: 0, open: false, stream: stream.name, series: null, gap: true, label: `no record for ${durationText(one.to_ms - one.from_ms)}, from ${timeText(one.from_ms)}` })),
    text: shown.length === 0 ? "" : shown.length === 1 ? `no record for ${durationText(longest)}` : `${countText(shown.length)} gaps without a record, the longest ${durationText(longest)}`,
  };
}

/** One row per stream, one for its faults and gaps, one per group and one per series. */
function rowsOf(fleet: Fleet, names: Names, gaps: Gaps, filter: string, label: string): Row[] {
  const groups: { worst: number; rows: Row[] }[] = [];
  for (const stream of fleet.streams) {
    const until = stream.latest_ms ?? fleet.now_ms, from = until - fleet.span_ms;
    const known = names[stream.name];
    const grouped = isGrouped(stream, label);
    const rows = seriesRows(stream, known?.names ?? [], filter, fleet.now_ms, fleet.span_ms, grouped);
    if (filter && !rows.length) continue;
    const all = spansOf(rows);
    const worst = rows[0]?.worst ?? -1;
    const faults = stream.faults.map((one) => ({ from: one.start_ms, to: one.end_ms ?? fleet.now_ms, severity: 3, open: one.end_ms === null, stream: stream.name, series: null, label: `${one.kind.replaceAll("_", " ")}: ${one.message}` }));
    // A fault has times of the wall clock; on a stream of old data only those that last are shown, at its end.
    const current = Math.abs(fleet.now_ms - until) < fleet.span_ms;
    const shown = current ? faults.map((one) => ({ ...one, from: one.from - (fleet.now_ms - until), to: one.to - (fleet.now_ms - until) }))
      : faults.filter((one) => one.open).map((one) => ({ ...one, from: until - fleet.span_ms / 60, to: until }));
    const lag = stream.latest_ms === null ? "no record yet" : Math.abs(fleet.now_ms - stream.latest_ms) < 3_600_000 ? `until ${ageText(stream.latest_ms, fleet.now_ms)}` : `until ${timeText(stream.latest_ms)}`;
    const open = stream.faults.filter((one) => one.end_ms === null), missing = gapsOf(stream, gaps[stream.name] ?? [], from);
    const unlisted = known && !filter ? known.count - known.names.length : 0;
    groups.push({ worst: worst + (open.length ? 5 : 0), rows: [
      { kind: "stream", key: stream.name, from, until, spans: all, stream: stream.name, series: null, worst, count: all.length, newest: 0,
        text: `${known || filter ? countText(rows.length + unlisted) : "…"} series, ${lag}` },
      { kind: "health", key: `${stream.name} health`, from, until, spans: [...missing.spans, ...shown], stream: stream.name, series: null, worst: -1, count: faults.length, newest: 0,
        ...(open[0] ? { fault: `${open[0].kind.replaceAll("_", " ")}: ${open[0].message}` } : {}),
        text: [missing.text, stream.buffered ? `${countText(stream.buffered)} buffered` : "", stream.late ? `${countText(stream.late)} late` : "",
          stream.dead_lettered ? countOf(stream.dead_lettered, "dead letter") : ""].filter(Boolean).join(", ") || "no late record, no dead letter" },
      ...(grouped ? groupedRows(rows, label) : rows)] });
  }
  return groups.sort((one, other) => other.worst - one.worst).flatMap((group) => group.rows);
}

function Tiles({ fleet }: { fleet: Fleet }): JSX.Element {
  const t = fleet.tiles;
  const current = fleet.streams.map((one) => one.behind_ms).filter((one): one is number => one !== null && one < 86_400_000);
  const tiles: [string, string, string, string?][] = [
    ["Open anomalies", countText(t.open_anomalies), `${countOf(t.open_alerts, "alert")} open`, t.open_anomalies ? "bad" : "good"],
    ["Records", t.records_per_second === null ? "–" : `${numberText(t.records_per_second, 3)}/s`, t.daemon_ms === null ? "no commit yet" : `last commit ${ageText(t.daemon_ms, fleet.now_ms)}`,
      t.daemon_ms !== null && fleet.now_ms - t.daemon_ms > 120_000 ? "warn" : ""],
    ["Lag", current.length ? durationText(Math.max(...current)) : "–", current.length ? "event time behind now" : fleet.streams.some((one) => one.latest_ms !== null) ? "event times are old" : "no record yet", ""],
    ["Messages in 24 h", countText(t.messages_today), t.budget === null ? `${countOf(t.pages_today, "page")}, no budget` : `${countText(t.pages_today)} of ${countOf(t.budget, "page")} of the budget`,
      t.budget !== null && t.pages_today > t.budget ? "warn" : ""],
    ["Deliveries waiting", countText(t.deliveries_waiting), t.deliveries_waiting ? "not yet accepted" : "none to send", ""],
    ["Faults", countText(t.open_faults), countOf(t.dead_letters, "dead letter"), t.open_faults ? "bad" : "good"],
  ];
  return <ul class="tiles" aria-label="Summary">{tiles.map(([name, value, note, mood]) =>
    <li key={name} class={mood}><span class="label">{name}</span><b>{value}</b><span class="note">{note}</span></li>)}</ul>;
}

interface Tip { x: number; y: number; span: Span }

/** The anomaly of a span: lanes carry neither ids nor sentences, of which there are thousands. */
const details = new Map<string, Promise<Anomaly | undefined>>();
function detailOf(span: Span): Promise<Anomaly | undefined> {
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

/** Names of the rows from `first` to `last`; they are made again only if these change. */
function names(rows: Row[], first: number, last: number): JSX.Element {
  return <ul class="names">{rows.slice(first, last).map((row, n) =>
    <li key={row.key} class={row.kind} style={{ top: `${(first + n) * ROW}px` }}>{
      row.kind === "series"
        ? <Link to={seriesAddress(row.stream, row.series!)} data-row title={plain(row.series!)} aria-label={`${plain(row.series!)}: ${row.text}`}>
          {row.worst >= 0 ? <SeverityMark severity={SEVERITIES[row.worst % 10]!} text={false} /> : <span class="quiet-mark" aria-hidden="true">·</span>}<bdi>{plain(row.series!)}</bdi></Link>
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

function Lanes({ rows, height }: { rows: Row[]; height: number }): JSX.Element {
  const box = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null), track = useRef<HTMLDivElement>(null);
  const [step, setStep] = useState(0);
  const [tip, setTip] = useState<Tip | null>(null);
  const colours = useRef<Colours | null>(null);
  const latest = useRef(rows);
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
  const frame = useRef(0);
  const onScroll = (): void => {
    if (frame.current) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      if (!box.current) return;
      seen.current.top = box.current.scrollTop;
      draw();
      setStep(Math.floor(seen.current.top / ROW / STEP));
      setTip(null);
    });
  };
  const hit = (event: MouseEvent): Tip | null => {
    const area = track.current!.getBoundingClientRect();
    const x = event.clientX - area.left;
    const lane = rows[Math.floor((event.clientY - area.top + box.current!.scrollTop) / ROW)];
    if (!lane || x < 0) return null;
    let best: Span | null = null, least = 6;
    for (const span of lane.spans) {
      const left = place(lane, span.from, area.width), right = Math.max(left + 4, place(lane, span.to, area.width));
      const far = x < left ? left - x : x > right ? x - right : 0;
      if (far < least) { least = far; best = span; }
    }
    return best && { x: Math.min(x, area.width - 260), y: event.clientY - area.top + ROW / 2, span: best };
  };
  const first = Math.max(0, step * STEP - BEYOND), last = Math.min(rows.length, (step + 1) * STEP + Math.ceil(height / ROW) + BEYOND);
  const shown = useMemo(() => names(rows, first, last), [rows, first, last]);
  return <div class="lanes" ref={box} onScroll={onScroll} role="region" aria-label="Lanes of streams and series" tabIndex={0} data-lanes={rows.length}>
    <div class="stretch" style={{ height: `${rows.length * ROW}px` }}>
      <div class="track" ref={track} onMouseMove={(event) => setTip(hit(event))} onMouseLeave={() => setTip(null)}
        onClick={(event) => { const found = hit(event); if (found && !found.span.label) void detailOf(found.span).then((one) => { if (one && box.current) go(`/anomalies/${one.id}`); }); }}>
        <canvas ref={canvas} aria-hidden="true" class={tip && !tip.span.label ? "hit" : ""} />
        {tip && <TipBox tip={tip} />}
      </div>
      {shown}
    </div>
  </div>;
}

/** The worst open anomalies in words; where none is open, those that ended last. */
function OpenNow({ fleet }: { fleet: Fleet }): JSX.Element | null {
  const worst = useMemo(() => fleet.streams.flatMap(({ name, lanes: { series, of, severity, start_ms, open } }) => of.flatMap((place, at): Span[] =>
    open[at] ? [{ from: start_ms[at]!, to: 0, severity: severity[at]!, open: true, stream: name, series: series[place]! }] : []))
    .sort((one, other) => other.severity - one.severity || other.from - one.from), [fleet]);
  const ended = useMemo(() => (worst.length ? [] : fleet.streams.flatMap(({ name, lanes: { series, of, severity, start_ms, end_ms } }) => of.map((place, at): Span =>
    ({ from: start_ms[at]!, to: end_ms[at]!, severity: severity[at]!, open: false, stream: name, series: series[place]! }))).sort((one, other) => other.to - one.to)), [fleet, worst]);
  const shown = worst.length ? worst.slice(0, SHOWN_OPEN) : ended.slice(0, SHOWN_ENDED);
  const key = shown.map((one) => `${one.stream}${one.series ?? ""}${one.from}${one.severity}`).join();
  const [found, setFound] = useState<Anomaly[]>([]);
  useEffect(() => {
    let gone = false;
    void Promise.all(shown.map(detailOf)).then((all) => { if (!gone) setFound(all.filter((one) => one !== undefined)); });
    return () => { gone = true; };
  }, [key]);
  const faults = fleet.streams.flatMap((stream) => stream.faults.filter((one) => one.end_ms === null).map((one) => ({ ...one, stream: stream.name })));
  if (!shown.length && !faults.length) return null;
  return <section class="card opennow" aria-label={worst.length ? "Open now" : "Nothing is open; ended last"}><ul>
    {faults.slice(0, 3).map((one) => <li key={one.kind + one.stream}><span class="fault"><span aria-hidden="true">⚠ </span>fault</span> <Link to="/system" data-row><Name text={one.stream} /></Link> <bdi>{one.kind.replaceAll("_", " ")}: {one.message}</bdi></li>)}
    {!worst.length && found.length > 0 && <li class="muted">No anomaly is open. Ended last:</li>}
    {found.map((one) => <li key={one.id}><SeverityMark severity={one.severity} /> <Link to={`/anomalies/${one.id}`} data-row><Name text={plain(one.series)} /></Link> <bdi>{one.text}</bdi> <span class="muted">{one.state === "closed" ? <>ended <When at={one.end} /></> : <>for {durationText(Math.max(0, (fleet.streams.find((stream) => stream.name === one.stream)?.latest_ms ?? fleet.now_ms) - Date.parse(one.start)))}</>}</span></li>)}
    {worst.length > shown.length && <li class="muted">and {countOf(worst.length - shown.length, "more open anomaly", "more open anomalies")} in the lanes</li>}
  </ul></section>;
}

/** Names of all series, which arrive after the lanes of those with anomalies. */
function useNames(streams: string | undefined): Names {
  const [names, setNames] = useState<Names>({});
  useEffect(() => {
    if (!streams) return undefined;
    const control = new AbortController();
    const load = (): void => streams.split("\u0000").forEach((stream) => {
      get<Names[string]>(`streams/${encodeURIComponent(stream)}/series-names`, {}, control.signal)
        .then((found) => setNames((old) => ({ ...old, [stream]: found })), () => undefined);
    });
    const first = window.setTimeout(load, 50), timer = window.setInterval(load, 60_000);
    return () => { control.abort(); window.clearTimeout(first); window.clearInterval(timer); };
  }, [streams]);
  return names;
}

/** Gaps in the data of all streams, which arrive after the lanes. */
function useGaps(streams: string | undefined, range: string): Gaps {
  const [gaps, setGaps] = useState<Gaps>({});
  useEffect(() => {
    if (!streams) return undefined;
    const control = new AbortController();
    const timers = new Map<string, number>();
    const again = (stream: string, ms: number): void => { if (!control.signal.aborted) timers.set(stream, window.setTimeout(() => load(stream), ms)); };
    const load = (stream: string): void => {
      get<{ gaps: Gap[]; unread_segments: number }>(`streams/${encodeURIComponent(stream)}/gaps`, { range }, control.signal).then((found) => {
        setGaps((old) => ({ ...old, [stream]: found.gaps }));
        again(stream, found.unread_segments ? 5_500 : 60_000);
      }, () => again(stream, 60_000));
    };
    streams.split("\u0000").forEach((stream) => again(stream, 100));
    return () => { control.abort(); timers.forEach((one) => window.clearTimeout(one)); };
  }, [streams, range]);
  return gaps;
}

export function FleetPage({ query }: { query: URLSearchParams }): JSX.Element {
  const range = query.get("range") ?? "24h";
  const asked = query.get("filter") ?? "", group = query.get("group") ?? "";
  const [filter, setFilter] = useState(asked);
  useLayoutEffect(() => setFilter(asked), [asked]); // another address, for example the way back
  const view = useView<Fleet>("fleet", { range }, 15, ["anomaly", "alert", "fault", "deliveries", "progress"]);
  const [height, setHeight] = useState(() => window.innerHeight);
  useEffect(() => {
    const onResize = (): void => setHeight(window.innerHeight);
    window.addEventListener("resize", onResize);
    return () => window.removeEventListener("resize", onResize);
  }, []);
  const names = useNames(view.data?.streams.map((one) => one.name).join("\u0000"));
  const gaps = useGaps(view.data?.streams.map((one) => one.name).join("\u0000"), range);
  const rows = useMemo(() => (view.data ? rowsOf(view.data, names, gaps, filter, group) : []), [view.data, names, gaps, filter, group]);
  const labels = useMemo(() => [...new Set((view.data?.streams ?? []).flatMap((one) => (one.labels.length > 1 ? one.labels : [])))].sort(), [view.data]);
  const span = RANGES.find(([key]) => key === range)?.[1] ?? range;
  const bar = <div class="bar">
    <input type="search" data-filter aria-label="Filter series by name or label" placeholder="Filter:  name  or  label=value   ( / )" value={filter}
      onInput={(event) => { setFilter(event.currentTarget.value); setQuery({ filter: event.currentTarget.value }); }} />
    {labels.length > 0 && <label class="muted">Group by <select value={group} onChange={(event) => setQuery({ group: event.currentTarget.value })}>
      <option value="">(no groups)</option>{labels.map((one) => <option key={one}>{one}</option>)}</select></label>}
    <div class="choices" role="group" aria-label="Time range">{RANGES.map(([key, name]) =>
      <button key={key} type="button" aria-pressed={key === range} onClick={() => setQuery({ range: key })}>{name}</button>)}</div>
    <span class="legend">{SEVERITIES.map((one) => <SeverityMark key={one} severity={one} />)}</span>
  </div>;
  // The filter is one and the same field before and after the first answer, so that nothing typed into it is lost.
  return <div class="page fleet">
    <h1 class="hidden">Fleet</h1>
    {view.data && <><Tiles fleet={view.data} /><OpenNow fleet={view.data} /></>}
    {bar}
    <Shown view={view}>{(fleet) => <>
      {rows.length ? <>
        {!filter && fleet.streams.every((one) => one.latest_ms === null) && <div class="stale" role="status"><b>No record was scored yet.</b> <code>forewatch run CONFIG</code> reads the sources; this page then fills by itself. If it runs already, <Link to="/system">System</Link> shows what it waits for.</div>}
        <div class="axis" aria-hidden="true"><span>{span} before</span>{[5, 4, 3, 2, 1].map((sixths) => <span key={sixths} class="tick" style={{ left: `${100 - (100 * sixths) / 6}%` }}>−{durationText((fleet.span_ms * sixths) / 6)}</span>)}<span>latest record</span></div>
        <Lanes rows={rows} height={height} />
        <p class="muted foot">{countText(rows.filter((row) => row.kind === "series").length)} series{fleet.left_out ? `; of ${countOf(fleet.left_out, "stream")} only the newest 5,000 anomalies of this range are drawn` : ""}</p>
      </> : filter ? <Empty title="No series matches the filter"><p>Words are looked for in names of streams and series; <code>site=berlin</code> looks in a label.</p>
        <button type="button" onClick={() => { setFilter(""); setQuery({ filter: null }); }}>Remove the filter</button></Empty>
        : <Empty title="No series yet"><p>The database has no scored record. <code>forewatch run CONFIG</code> reads the sources; this page then fills by itself.</p></Empty>}
    </>}</Shown>
  </div>;
}
