/** Series: charts of its channels, verdicts, model versions, gaps and late points. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { durationOf } from "./advice";
import { get, useView } from "./api";
import { Chart, type Run, type SeriesData } from "./chart";
import { countText, durationText, numberText, timeText } from "./format";
import type { Labelled } from "./incident";
import { Empty, Link, Name, Section, SeverityMark, Shown, Table, When } from "./parts";
import { setQuery, tryAddress } from "./route";
import { EventSections } from "./sequence";

const SPANS: [string, number][] = [["1 h", 3_600_000], ["1 d", 86_400_000], ["7 d", 604_800_000], ["30 d", 2_592_000_000], ["1 y", 31_536_000_000]];
/** The server draws at most 400 days. */
const LONGEST_MS = 399 * 86_400_000;
/** A comparison of a live chart is read so far ahead. */
const COMPARED_AHEAD_MS = 600_000;
/** Most changes of a forecaster that a strip shows. */
const MAX_RUNS = 40;
const COMPARE: Record<string, number> = { yesterday: 86_400_000, "last week": 604_800_000 };

/** What the marks of a chart mean: those that are always there, and those of this range. */
function Legend({ data }: { data: SeriesData }): JSX.Element {
  const keys: [string, string, boolean][] = [["observed", "observed", true], ["expected", "expected", true], ["interval", "prediction interval", true], ["anomaly", "anomaly", data.anomalies.length > 0],
    ["limits", "limits of its cause", data.anomalies.some((one) => one.of_value)], ["hollow", "retracted", data.retracted.length > 0 || data.anomalies.some((one) => one.review?.label === "false")],
    ["revised", "changed by late points", data.anomalies.some((one) => one.revised !== null && one.review?.label !== "false")], ["late", "late point", data.late_ms.length > 0], ["missing", "missing points", data.missing.length > 0], ["excluded", "not used for training", data.excluded.length > 0]];
  return <span class="legend wrap">{keys.map(([kind, name, there]) => there && <span key={kind}><span class={`mark ${kind}`} aria-hidden="true" /> {name}</span>)}</span>;
}

/** Channels that led to an anomaly, with their shares. */
function sharesText(one: Labelled): string {
  if (one.channels.length < 2) return one.channels[0]?.channel ?? "";
  return [...one.channels].sort((some, other) => (other.contribution ?? 0) - (some.contribution ?? 0)).slice(0, 3).filter((some, n) => n === 0 || (some.contribution ?? 0) >= 0.01)
    .map((some) => `${some.channel} ${numberText((some.contribution ?? 0) * 100, 2)} %`).join(", ");
}

function Strip({ name, runs, data }: { name: string; runs: Run[]; data: SeriesData }): JSX.Element | null {
  if (!runs.length) return null;
  const at = (ms: number): number => ((ms - data.from_ms) / (data.to_ms - data.from_ms)) * 100;
  return <div class="strip" role="img" aria-label={`${name}: ${runs.map((one) => one.name).join(", then ")}`}>{runs.map((one, n) => {
    const width = Math.max(0.4, at(runs[n + 1]?.from_ms ?? one.to_ms) - at(one.from_ms));
    return <span key={n} title={`${name} ${one.name} from ${timeText(one.from_ms)}`} style={{ left: `${at(one.from_ms)}%`, width: `${width}%` }}>{width > 20 ? `${name}: ${one.name}` : width > 6 ? one.name : ""}</span>;
  })}</div>;
}

/** The same series a day or a week before, for a chart; null without a comparison. */
function useBefore(data: SeriesData | null, by: number, live: boolean, width: number): SeriesData | null {
  const [before, setBefore] = useState<{ by: number; data: SeriesData } | null>(null);
  useEffect(() => {
    if (!by || !data) return undefined;
    const control = new AbortController();
    const ends = data.to_ms - by + (live ? COMPARED_AHEAD_MS : 0); // a live chart moves on
    get<SeriesData>("chart", { stream: data.stream, series: data.series, from: new Date(data.from_ms - by).toISOString(), to: new Date(ends).toISOString(), width }, control.signal)
      .then((found) => setBefore({ by, data: found }), () => undefined);
    return () => control.abort();
  }, [by, data?.stream, data?.series, live || data?.from_ms, live ? Math.floor((data?.to_ms ?? 0) / COMPARED_AHEAD_MS) : data?.to_ms]);
  return by && before?.by === by && before.data.stream === data?.stream && before.data.series === data.series ? before.data : null;
}

type Move = (shift: number, scale: number) => void;

function setRange(start: number, end: number): void {
  if (end - start >= 1000 && end - start <= LONGEST_MS) setQuery({ from: new Date(start).toISOString(), to: new Date(end).toISOString() });
}

/** Pan and zoom, by buttons and keys. */
function useMove(data: SeriesData | null): Move {
  const move: Move = (shift, scale) => {
    // The range of the address, which a key before this one may have changed a moment ago.
    const asked = new URLSearchParams(location.search), begin = asked.get("from"), end = asked.get("to");
    const bounds = begin && end ? [Date.parse(begin), Date.parse(end)] : data && [data.from_ms, data.to_ms];
    if (!bounds) return;
    const middle = (bounds[0]! + bounds[1]!) / 2, span = bounds[1]! - bounds[0]!;
    setRange(middle + shift * span - (span * scale) / 2, middle + shift * span + (span * scale) / 2);
  };
  const latest = useRef(move);
  latest.current = move;
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (/^(INPUT|TEXTAREA|SELECT)$/.test((event.target as HTMLElement).tagName) || event.ctrlKey || event.metaKey) return;
      if (event.key === "[") latest.current(-0.5, 1);
      else if (event.key === "]") latest.current(0.5, 1);
      else if (event.key === "+") latest.current(0, 0.5);
      else if (event.key === "-") latest.current(0, 2);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  return move;
}

function Bar({ data, stream, series, live, compare, move }: { data: SeriesData | null; stream: string; series: string; live: boolean; compare: string; move: Move }): JSX.Element {
  return <div class="bar">
    <div class="choices" role="group" aria-label="Move"><button type="button" onClick={() => move(-0.5, 1)} aria-label="Earlier">◀</button><button type="button" onClick={() => move(0, 0.5)} aria-label="Zoom in">+</button>
      <button type="button" onClick={() => move(0, 2)} aria-label="Zoom out">−</button><button type="button" onClick={() => move(0.5, 1)} aria-label="Later">▶</button></div>
    <div class="choices" role="group" aria-label="Length">{SPANS.map(([name, ms]) => <button key={name} type="button" aria-pressed={data !== null && !live && Math.abs(data.to_ms - data.from_ms - ms) < 1000}
      onClick={() => { if (data) setRange(data.to_ms - ms, data.to_ms); }}>{name}</button>)}</div>
    <button type="button" aria-pressed={live} onClick={() => setQuery({ from: null, to: null })}>Newest (live)</button>
    {!data?.events && <><span class="muted">Compare with</span><div class="choices" role="group" aria-label="Compare with">{Object.keys(COMPARE).map((name) => <button key={name} type="button" aria-pressed={compare === name}
      onClick={() => setQuery({ compare: compare === name ? null : name })}>{name}</button>)}</div></>}
    {data && !data.events && <Link to={tryAddress(stream, series)} class="button">Try other settings</Link>}
    <span class="muted">{data?.events ? "Keys [ ] + −" : "Drag over a chart to zoom; keys [ ] + −"}</span>
  </div>;
}

function AnomalyTable({ data }: { data: SeriesData }): JSX.Element {
  const found = data.anomalies.map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} />, <Link to={`/anomalies/${one.id}`}><bdi>{one.text}</bdi></Link>, <When at={one.start} />,
    one.state === "open" ? "open" : durationOf(one), one.cause.replaceAll("_", " "), <Name text={sharesText(one)} />, one.review?.label ?? "–", one.revised ? <When at={one.revised} /> : "–"] }));
  const retracted = data.retracted.map((one) => ({ key: one.id, cells: ["–", <Link to={`/anomalies/${one.id}`}>retracted</Link>, <When ms={one.from_ms} />,
    one.to_ms > one.from_ms ? durationText(one.to_ms - one.from_ms) : "–", "–", "–", "–", one.revised ? <When at={one.revised} /> : "–"] }));
  return <Section title="Anomalies in this range"><Table label="Anomalies" columns={["Severity", "What", "From", "Lasted", "Cause", "Channels", "Label", "Changed by late points"]} empty="None." rows={[...found, ...retracted]} /></Section>;
}

export function SeriesPage({ query }: { query: URLSearchParams }): JSX.Element {
  const stream = query.get("stream") ?? "", series = query.get("series") ?? "";
  const from = query.get("from"), to = query.get("to"), compare = query.get("compare") ?? "", by = COMPARE[compare] ?? 0;
  const width = useMemo(() => Math.min(2000, Math.max(300, window.innerWidth - 120)), []);
  const view = useView<SeriesData>("chart", { stream, series, from, to, width }, from ? 60 : 1, from ? [] : ["anomaly"]);
  // Until another range is read, the one before stays.
  const last = useRef<SeriesData | null>(null);
  if (view.data) last.current = view.data;
  const data = last.current?.stream === stream && last.current.series === series ? last.current : null;
  const other = useBefore(data, by, !from, width);
  const move = useMove(data);
  return <div class="page series" aria-busy={view.data === null}>
    <h1><Name long text={series} /> <span class="muted">· <bdi>{stream}</bdi></span></h1>
    <Bar data={data} stream={stream} series={series} live={!from} compare={compare} move={move} />
    <Shown view={{ ...view, data }}>{(found) => found.rows === 0
      ? <Empty title="No recorded point in this range"><p>The recorded history may be off (<code>storage.history</code>), older than <code>storage.keep_history</code>, or not yet written: points arrive here a second or two after they are scored.</p></Empty>
      : <>
        {found.events ? <EventSections events={found.events} limit={found.alarm_surprise ?? 0} /> : <Section title={`${countText(found.rows)} points over ${durationText(found.to_ms - found.from_ms)}`} aside={<Legend data={found} />}>
          {found.channels.map((channel) => <Chart key={channel} data={found} channel={channel} other={other} by={by} onRange={setRange} />)}
          <Strip name="model" runs={found.models} data={found} />
          {found.forecasters.length > MAX_RUNS ? <p class="muted">The forecaster changed {countText(found.forecasters.length)} times or more in this range; zoom in to see when.</p>
            : <Strip name="forecaster" runs={found.forecasters.map((one) => ({ ...one, name: (one.name ?? "").replaceAll("_", " ") }))} data={found} />}
        </Section>}
        <AnomalyTable data={found} />
      </>}</Shown>
  </div>;
}
