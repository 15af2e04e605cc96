/** Fleet: lanes of all streams and series, the worst first, with the health of their data. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { get, useView } from "./api";
import { ageText, countOf, countText, durationText, numberText } from "./format";
import { rowsOf, type Fleet, type Gaps, type Names } from "./fleet_rows";
import type { Anomaly } from "./incident";
import type { Span } from "./lanes";
import { detailOf, Lanes } from "./lanes_box";
import { Empty, Link, Name, plain, SEVERITIES, SeverityMark, Shown, When } from "./parts";
import { setQuery } from "./route";

const RANGES: [string, string][] = [["1h", "1 hour"], ["6h", "6 hours"], ["24h", "1 day"], ["7d", "7 days"], ["30d", "30 days"], ["365d", "1 year"]];

const SHOWN_OPEN = 5, SHOWN_ENDED = 3;

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
    const timers = new Map<string, number>();
    const again = (stream: string, ms: number): void => { if (!control.signal.aborted) timers.set(stream, window.setTimeout(() => load(stream), ms)); };
    const load = (stream: string): void => {
      get<Names[string]>(`streams/${encodeURIComponent(stream)}/series-names`, {}, control.signal).then((found) => {
        setNames((old) => ({ ...old, [stream]: found }));
        again(stream, found.count ? 60_000 : 3_000); // a stream that has just begun
      }, () => again(stream, 60_000));
    };
    streams.split("\u0000").forEach((stream) => again(stream, 50));
    return () => { control.abort(); timers.forEach((one) => window.clearTimeout(one)); };
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
      get<{ gaps: Gaps[string]; unread_segments: number }>(`streams/${encodeURIComponent(stream)}/gaps`, { range }, control.signal).then((found) => {
        setGaps((old) => ({ ...old, [stream]: found.gaps }));
        again(stream, found.unread_segments ? 5_500 : 60_000);
      }, () => again(stream, 60_000));
    };
    streams.split("\u0000").forEach((stream) => again(stream, 100));
    return () => { control.abort(); timers.forEach((one) => window.clearTimeout(one)); };
  }, [streams, range]);
  return gaps;
}

interface BarProps { filter: string; setFilter: (text: string) => void; labels: string[]; group: string; range: string }

function FilterBar({ filter, setFilter, labels, group, range }: BarProps): JSX.Element {
  return <div class="bar">
    <input type="search" data-filter aria-label="Filter series by name or label" placeholder="Filter:  name  or  label=value   ( / )" value={filter}
      onInput={(event) => { setFilter(event.currentTarget.value); setQuery({ filter: event.currentTarget.value }); }} />
    {labels.length > 0 && <label class="muted">Group by <select value={group} onChange={(event) => setQuery({ group: event.currentTarget.value })}>
      <option value="">(no groups)</option>{labels.map((one) => <option key={one}>{one}</option>)}</select></label>}
    <div class="choices" role="group" aria-label="Time range">{RANGES.map(([key, name]) =>
      <button key={key} type="button" aria-pressed={key === range} onClick={() => setQuery({ range: key })}>{name}</button>)}</div>
    <span class="legend">{SEVERITIES.map((one) => <SeverityMark key={one} severity={one} />)}</span>
  </div>;
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
  // The filter is one and the same field before and after the first answer, so that nothing typed into it is lost.
  return <div class="page fleet">
    <h1 class="hidden">Fleet</h1>
    {view.data && <><Tiles fleet={view.data} /><OpenNow fleet={view.data} /></>}
    <FilterBar filter={filter} setFilter={setFilter} labels={labels} group={group} range={range} />
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
