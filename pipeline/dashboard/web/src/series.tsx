/** Series: observed values with their expected band, verdicts, model versions, gaps and late points. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { durationOf } from "./advice";
import { get, useView } from "./api";
import { axisLabels, countText, durationText, numberText, timeText, valueLabels } from "./format";
import type { Channel, Labelled } from "./incident";
import { Empty, Link, Name, Section, SeverityMark, Shown, Table, When } from "./parts";
import { setQuery, tryAddress } from "./route";
import { EventSections, type EventRow } from "./sequence";

type Numbers = (number | null)[];
interface Points { min: Numbers; max: Numbers; expected: Numbers; lower: Numbers; upper: Numbers }
interface Run { name: string; from_ms: number; to_ms: number }
export interface SeriesData {
  stream: string; series: string; from_ms: number; to_ms: number; rows: number; channels: string[]; units: Record<string, string>; time_ms: number[]; reduced: boolean;
  points: Record<string, Points>; models: Run[]; forecasters: Run[]; missing: { from_ms: number; to_ms: number }[];
  events: EventRow[] | null; alarm_surprise?: number; anomalies: Labelled[]; late_ms: number[]; retracted: { id: string; from_ms: number; to_ms: number; revised: string | null }[]; excluded: { from_ms: number; to_ms: number; why: string }[];
}

const SPANS: [string, number][] = [["1 h", 3_600_000], ["1 d", 86_400_000], ["7 d", 604_800_000], ["30 d", 2_592_000_000], ["1 y", 31_536_000_000]];
/** The server draws at most 400 days. */
const LONGEST_MS = 399 * 86_400_000;
/** A comparison of a live chart is read so far ahead. */
const COMPARED_AHEAD_MS = 600_000;
const COMPARE: Record<string, number> = { yesterday: 86_400_000, "last week": 604_800_000 };

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The channel that led to an anomaly. */
function ledBy(one: Labelled): Channel {
  return one.channels.reduce((best, some) => ((some.contribution ?? 0) > (best.contribution ?? 0) ? some : best));
}

/** Bands behind the lines: anomalies with the limits of their cause, excluded stretches, gaps and late points. */
function drawMarks(plot: uPlot, data: SeriesData, channel: string): void {
  const pen = plot.ctx, { left, top, width, height } = plot.bbox;
  const x = (ms: number): number => Math.min(left + width, Math.max(left, plot.valToPos(ms / 1000, "x", true)));
  const stretch = (from: number, to: number, fill: string, y = top, high = height): void => {
    if (!within(from, to)) return;
    pen.fillStyle = fill;
    pen.fillRect(x(from), y, Math.max(2, x(to) - x(from)), high);
  };
  const within = (from: number, to: number): boolean => to / 1000 >= (plot.scales["x"]!.min ?? 0) && from / 1000 <= (plot.scales["x"]!.max ?? 0);
  const frame = (from: number, to: number, high: number): void => {
    if (!within(from, to)) return;
    pen.strokeStyle = colour("--muted");
    pen.lineWidth = 1.5;
    pen.strokeRect(x(from), top + 1, Math.max(6, x(to) - x(from)), high);
  };
  // Retracted by a label or by late points: only a hollow mark.
  const hollow = (from: number, to: number): void => frame(from, to, 8);
  // Found or changed by late points: a dashed frame.
  const revised = (from: number, to: number): void => {
    pen.setLineDash([3, 3]);
    frame(from, to, height - 2);
    pen.setLineDash([]);
  };
  // The limits that the cause of an anomaly has crossed, over the anomaly and a little beyond.
  const limits = (from: number, to: number, ends: (number | null)[]): void => {
    pen.strokeStyle = colour("--good");
    pen.lineWidth = 2;
    pen.setLineDash([6, 4]);
    for (const end of ends) {
      const y = end === null ? -1 : plot.valToPos(end, "y", true);
      if (y < top || y > top + height) continue;
      pen.beginPath();
      pen.moveTo(Math.max(left, x(from) - 24), y);
      pen.lineTo(Math.min(left + width, x(to) + 24), y);
      pen.stroke();
    }
    pen.setLineDash([]);
  };
  pen.save();
  data.excluded.forEach((one) => stretch(one.from_ms, one.to_ms, colour("--quarantine")));
  data.missing.forEach((one) => stretch(one.from_ms, one.to_ms, colour("--stripe")));
  for (const one of data.anomalies) {
    const fill = colour(`--${one.severity}`);
    if (one.review?.label === "false") {
      hollow(Date.parse(one.start), Date.parse(one.end));
      continue;
    }
    pen.globalAlpha = 0.16;
    stretch(Date.parse(one.start), Date.parse(one.end), fill);
    pen.globalAlpha = 1;
    stretch(Date.parse(one.start), Date.parse(one.end), fill, top, 5);
    if (one.revised) revised(Date.parse(one.start), Date.parse(one.end));
    const led = ledBy(one);
    if (one.of_value && led.channel === channel) limits(Date.parse(one.start), Date.parse(one.end), [led.lower, led.upper]);
  }
  data.retracted.forEach((one) => hollow(one.from_ms, one.to_ms));
  data.late_ms.forEach((one) => stretch(one, one, colour("--fault"), top + height - 8, 8));
  pen.restore();
}

/** Values of another stretch at the times of this one. */
function shifted(times: number[], other: SeriesData | null, channel: string, by: number): Numbers {
  const points = other?.points[channel];
  if (!other || !points) return times.map(() => null);
  const known = other.time_ms, usual = known.length > 1 ? (known[known.length - 1]! - known[0]!) / (known.length - 1) : 0;
  const farthest = Math.max(2 * usual, 1000);
  let at = 0;
  return times.map((time) => {
    while (at + 1 < other.time_ms.length && other.time_ms[at + 1]! <= time - by) at++;
    return other.time_ms.length && Math.abs(other.time_ms[at]! - (time - by)) <= farthest ? points.max[at]! : null;
  });
}

export function Chart({ data, channel, other, by, onRange, height, usual }: {
  data: SeriesData; channel: string; other: SeriesData | null; by: number; onRange: (from: number, to: number) => void; height?: number;
  /** Usual range of the cause of an anomaly, in units of the value. */
  usual?: [number | null, number | null] | undefined;
}): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plotted = useRef<uPlot | null>(null), shown = useRef(data);
  const [theme, setTheme] = useState(0);
  shown.current = data;
  useEffect(() => {
    const redraw = (): void => setTheme((n) => n + 1);
    window.addEventListener("theme", redraw);
    return () => window.removeEventListener("theme", redraw);
  }, []);
  const columns = useMemo((): uPlot.AlignedData => {
    const points = data.points[channel]!;
    const ends = [usual?.[0] ?? null, usual?.[1] ?? null].filter((end) => end !== null);
    return [data.time_ms.map((ms) => ms / 1000), points.upper, points.lower, points.expected, points.max, ...(data.reduced ? [points.min] : []),
      ...(other ? [shifted(data.time_ms, other, channel, by)] : []), ...ends.map((end) => data.time_ms.map(() => end))];
  }, [data, other, channel, by, usual?.[0], usual?.[1]]);
  // A chart with the same lines takes new points; it is built anew only for other ones.
  const few = !data.reduced && data.time_ms.length < 200;
  const structure = [channel, theme, data.reduced, few, other !== null, usual?.[0], usual?.[1]];
  useEffect(() => {
    const plot = plotted.current;
    if (!plot || plot.data === columns) return;
    plot.batch(() => {
      plot.setData(columns);
      plot.setScale("x", { min: data.from_ms / 1000, max: data.to_ms / 1000 });
    });
  }, [columns]);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined; // the page was left before this ran
    const unit = data.units[channel];
    const lines: uPlot.Series[] = [
      {},
      { label: "upper", stroke: "transparent", points: { show: false } },
      { label: "lower", stroke: "transparent", points: { show: false } },
      { label: "expected", stroke: colour("--expected"), width: 1, dash: [4, 3], points: { show: false } },
      { label: data.reduced ? "highest" : `observed${unit ? ` (${unit})` : ""}`, stroke: colour("--observed"), width: 1.5, points: { show: few, size: 4 } },
    ];
    if (data.reduced) lines.push({ label: "lowest", stroke: colour("--observed"), width: 1.5, points: { show: false } });
    if (other) lines.push({ label: "before", stroke: colour("--muted"), width: 1, points: { show: false } });
    for (const [at, name] of ["usual from", "usual to"].entries()) {
      if ((usual?.[at] ?? null) !== null) lines.push({ label: name, stroke: colour("--good"), width: 1.5, dash: [8, 4], points: { show: false } });
    }
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const plot = plotted.current = new uPlot({
      width: element.clientWidth, height: height ?? (data.channels.length > 2 ? 190 : 270),
      cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "series" } },
      scales: { x: { min: data.from_ms / 1000, max: data.to_ms / 1000 } },
      axes: [{ ...axis, values: axisLabels, space: 80 }, { ...axis, values: valueLabels, size: 62 }],
      series: lines,
      bands: [{ series: [1, 2], fill: colour("--interval") }, ...(data.reduced ? [{ series: [4, 5] as [number, number], fill: colour("--band") }] : [])],
      hooks: {
        drawAxes: [(self) => drawMarks(self, shown.current, usual ? "" : channel)],
        setSelect: [(self) => { if (self.select.width > 6) onRange(self.posToVal(self.select.left, "x") * 1000, self.posToVal(self.select.left + self.select.width, "x") * 1000); }],
      },
    }, columns, element);
    const watcher = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: plot.height }));
    watcher.observe(element);
    return () => { watcher.disconnect(); plot.destroy(); plotted.current = null; };
  }, structure);
  return <div class="plot"><h3><Name text={channel} />{data.units[channel] && <span class="muted"> in <bdi>{data.units[channel]}</bdi></span>}{usual && <span class="muted"> – – usual range of the cause</span>}</h3><div ref={box} role="img" aria-label={`${channel}: ${countText(data.rows)} points from ${timeText(data.from_ms)} to ${timeText(data.to_ms)}, ${data.anomalies.length} anomalies`} /></div>;
}

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

export function SeriesPage({ query }: { query: URLSearchParams }): JSX.Element {
  const stream = query.get("stream") ?? "", series = query.get("series") ?? "";
  const from = query.get("from"), to = query.get("to"), compare = query.get("compare") ?? "";
  const width = useMemo(() => Math.min(2000, Math.max(300, window.innerWidth - 120)), []);
  const view = useView<SeriesData>("chart", { stream, series, from, to, width }, from ? 60 : 1, from ? [] : ["anomaly"]);
  const [before, setBefore] = useState<{ by: number; data: SeriesData } | null>(null);
  const by = COMPARE[compare] ?? 0;
  // Until another range is read, the one before stays.
  const last = useRef<SeriesData | null>(null);
  if (view.data) last.current = view.data;
  const data = last.current?.stream === stream && last.current.series === series ? last.current : null;
  useEffect(() => {
    if (!by || !data) return undefined;
    const control = new AbortController();
    const ends = data.to_ms - by + (from ? 0 : COMPARED_AHEAD_MS); // a live chart moves on
    get<SeriesData>("chart", { stream, series, from: new Date(data.from_ms - by).toISOString(), to: new Date(ends).toISOString(), width }, control.signal)
      .then((found) => setBefore({ by, data: found }), () => undefined);
    return () => control.abort();
  }, [compare, from && data?.from_ms, from ? data?.to_ms : Math.floor((data?.to_ms ?? 0) / COMPARED_AHEAD_MS)]);
  const other = by && before?.by === by ? before.data : null;
  const range = (start: number, end: number): void => {
    if (end - start >= 1000 && end - start <= LONGEST_MS) setQuery({ from: new Date(start).toISOString(), to: new Date(end).toISOString() });
  };
  const move = (shift: number, scale: number): void => {
    // The range of the address, which a key before this one may have changed a moment ago.
    const asked = new URLSearchParams(location.search), begin = asked.get("from"), end = asked.get("to");
    const bounds = begin && end ? [Date.parse(begin), Date.parse(end)] : data && [data.from_ms, data.to_ms];
    if (!bounds) return;
    const middle = (bounds[0]! + bounds[1]!) / 2, span = bounds[1]! - bounds[0]!;
    range(middle + shift * span - (span * scale) / 2, middle + shift * span + (span * scale) / 2);
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
  return <div class="page series" aria-busy={view.data === null}>
    <h1><Name long text={series} /> <span class="muted">· <bdi>{stream}</bdi></span></h1>
    <div class="bar">
      <div class="choices" role="group" aria-label="Move"><button type="button" onClick={() => move(-0.5, 1)} aria-label="Earlier">◀</button><button type="button" onClick={() => move(0, 0.5)} aria-label="Zoom in">+</button>
        <button type="button" onClick={() => move(0, 2)} aria-label="Zoom out">−</button><button type="button" onClick={() => move(0.5, 1)} aria-label="Later">▶</button></div>
      <div class="choices" role="group" aria-label="Length">{SPANS.map(([name, ms]) => <button key={name} type="button" aria-pressed={data !== null && from !== null && Math.abs(data.to_ms - data.from_ms - ms) < 1000}
        onClick={() => { if (data) range(data.to_ms - ms, data.to_ms); }}>{name}</button>)}</div>
      <button type="button" aria-pressed={!from} onClick={() => setQuery({ from: null, to: null })}>Newest (live)</button>
      {!data?.events && <><span class="muted">Compare with</span><div class="choices" role="group" aria-label="Compare with">{Object.keys(COMPARE).map((name) => <button key={name} type="button" aria-pressed={compare === name}
        onClick={() => setQuery({ compare: compare === name ? null : name })}>{name}</button>)}</div></>}
      {data && !data.events && <Link to={tryAddress(stream, series)} class="button">Try other settings</Link>}
      <span class="muted">{data?.events ? "Keys [ ] + −" : "Drag over a chart to zoom; keys [ ] + −"}</span>
    </div>
    <Shown view={{ ...view, data }}>{(found) => found.rows === 0
      ? <Empty title="No recorded point in this range"><p>The recorded history may be off (<code>storage.history</code>), older than <code>storage.keep_history</code>, or not yet written: points arrive here a second or two after they are scored.</p></Empty>
      : <>
        {found.events ? <EventSections events={found.events} limit={found.alarm_surprise ?? 0} /> : <Section title={`${countText(found.rows)} points over ${durationText(found.to_ms - found.from_ms)}`} aside={<Legend data={found} />}>
          {found.channels.map((channel) => <Chart key={channel} data={found} channel={channel} other={other} by={by} onRange={range} />)}
          <Strip name="model" runs={found.models} data={found} />
          <Strip name="forecaster" runs={found.forecasters.length > 40 ? [] : found.forecasters.map((one) => ({ ...one, name: (one.name ?? "").replaceAll("_", " ") }))} data={found} />
        </Section>}
        <Section title="Anomalies in this range"><Table label="Anomalies" columns={["Severity", "What", "From", "Lasted", "Cause", "Channels", "Label", "Changed by late points"]} empty="None."
          rows={found.anomalies.map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} />, <Link to={`/anomalies/${one.id}`}><bdi>{one.text}</bdi></Link>, <When at={one.start} />,
            one.state === "open" ? "open" : durationOf(one), one.cause.replaceAll("_", " "), <Name text={sharesText(one)} />, one.review?.label ?? "–", one.revised ? <When at={one.revised} /> : "–"] })).concat(found.retracted.map((one) => ({ key: one.id, cells: ["–", <Link to={`/anomalies/${one.id}`}>retracted</Link>, <When ms={one.from_ms} />, one.to_ms > one.from_ms ? durationText(one.to_ms - one.from_ms) : "–", "–", "–", "–", one.revised ? <When at={one.revised} /> : "–"] })))} /></Section>
      </>}</Shown>
  </div>;
}
