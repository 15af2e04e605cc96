/** Try: a file is scored at once, with sliders, and the config of what is shown can be copied. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { RequestError, upload, useView, type Page } from "./api";
import { axisLabels, countOf, countText, valueLabels, zone } from "./format";
import { CopyButton, Empty, ErrorBox, plain, Section } from "./parts";

interface Tried {
  rows: number; used: number; columns: string[]; numeric: string[]; time: string; series: string; values: string[]; names: string[]; flagged_of: number[]; shown: string; flagged: number; preset: string; detector: string; judged: string[]; notes: string[]; settings: Settings;
  time_ms: number[]; observed: (number | null)[]; expected: (number | null)[]; lower: (number | null)[]; upper: (number | null)[]; flags: number[]; yaml: string;
}
type Settings = Record<string, string>;

function colour(name: string): string { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function Chart({ data }: { data: Tried }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined; // the page was left before this ran
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 } };
    const plot = new uPlot({ width: element.clientWidth, height: 340, axes: [{ ...axis, values: axisLabels, space: 80 }, { ...axis, values: valueLabels, size: 62 }],
      series: [{}, { label: "upper", stroke: "transparent", points: { show: false } }, { label: "lower", stroke: "transparent", points: { show: false } }, { label: "expected", stroke: colour("--expected"), dash: [4, 3], points: { show: false } },
        { label: plain(data.values[0]!), stroke: colour("--observed"), width: 1.5, points: { show: false } },
        { label: "flagged", stroke: colour("--critical"), paths: () => null, points: { show: true, size: 7, fill: colour("--critical") } }],
      bands: [{ series: [1, 2], fill: colour("--interval") }] },
    [data.time_ms.map((ms) => ms / 1000), data.upper, data.lower, data.expected, data.observed, data.observed.map((value, n) => (data.flags[n] ? value : null))], element);
    return () => plot.destroy();
  }, [data]);
  return <div class="plot" ref={box} role="img" aria-label={`${data.values[0] ?? ""}: ${countText(data.time_ms.length)} points, ${data.flags.filter(Boolean).length} flagged`} />;
}

interface Topic { topic: string; stream: string }

/** A topic of Kafka by name; it is read with the brokers and the credentials of a stream. */
function TopicForm({ streams, onChoose }: { streams: string[]; onChoose: (topic: Topic) => void }): JSX.Element {
  const [topic, setTopic] = useState("");
  const [stream, setStream] = useState(streams[0]!);
  return <form class="topic" onSubmit={(event) => { event.preventDefault(); if (topic.trim()) onChoose({ topic: topic.trim(), stream }); }}>
    <label class="slider"><span>or the newest records of a topic of Kafka</span><input type="text" value={topic} maxLength={249} placeholder="name of the topic" onInput={(event) => setTopic(event.currentTarget.value)} /></label>
    {streams.length > 1 && <label class="slider"><span>with the brokers of</span><select value={stream} onChange={(event) => setStream(event.currentTarget.value)}>{streams.map((one) => <option key={one}>{one}</option>)}</select></label>}
    <button type="submit" disabled={!topic.trim()}>Read it</button></form>;
}

/** Of a file; a stream has its own, which the first answer states. */
const DEFAULTS: Settings = { sensitivity: "normal", direction: "both", preset: "sensor", min_deviation: "0", min_points: "1", timezone: "UTC", holidays: "none" };
const ZONES = Intl.supportedValuesOf("timeZone");
/** A country, or a part of one: US, DE-BY. */
const COUNTRY = "none|[A-Z]{2}(-[A-Z0-9]{1,4})?";

/** Zones to choose from: that of the stream and of the reader first. */
function zones(chosen: string): string[] {
  return [...new Set([chosen, "UTC", zone, ...ZONES])];
}

export function TryPage({ query }: { query: URLSearchParams }): JSX.Element {
  const asked = query.get("stream") ?? "";
  const [file, setFile] = useState<File | null>(null);
  const [given, setSettings] = useState<Settings>(asked ? { show: query.get("series") ?? "", values: query.get("channel") ?? "" } : DEFAULTS);
  const [data, setData] = useState<Tried | null>(null);
  const [error, setError] = useState<RequestError | null>(null);
  const [busy, setBusy] = useState(false);
  const [over, setOver] = useState(false);
  const [recorded, setRecorded] = useState(asked);
  const [topic, setTopic] = useState<Topic | null>(null);
  const streams = useView<Page<{ name: string }>>("streams", {}, 60).data?.items ?? [];
  const config = useView<{ config: { streams: Record<string, { source: { kafka?: unknown } }> } }>("config", {}, 600).data;
  const kafka = Object.entries(config?.config.streams ?? {}).filter(([, one]) => one.source.kafka).map(([name]) => name);
  useEffect(() => {
    if (!file && !recorded && !topic) return undefined;
    const control = new AbortController();
    setBusy(true);
    const timer = window.setTimeout(() => {
      const { time, series, ...of_topic } = given;
      const answer = topic ? upload<Tried>("try/topic", { ...of_topic, ...topic }, new Blob(), control.signal)
        : upload<Tried>("try", { ...given, stream: file ? "" : recorded }, file ?? new Blob(), control.signal);
      answer.then(
        (found) => { setData(found); setError(null); setBusy(false); },
        (failure: unknown) => { if (failure instanceof RequestError) { setError(failure); setBusy(false); } });
    }, 200);
    return () => { window.clearTimeout(timer); control.abort(); };
  }, [file, recorded, topic, given]);
  const settings: Settings = { ...DEFAULTS, ...data?.settings, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value)) };
  const begin = (chosen: File | null, stream: string, of: Topic | null = null): void => {
    setData(null);
    setError(null);
    setSettings(stream ? {} : { ...DEFAULTS, ...settings, preset: of ? "" : settings["preset"]!, time: "", series: "", values: "", show: "" });
    setFile(chosen);
    setRecorded(stream);
    setTopic(of);
  };
  const take = (chosen: File | undefined): void => { if (chosen) begin(chosen, ""); };
  const set = (name: string, value: string): void => { setSettings((old) => ({ ...old, [name]: value })); };
  const choice = (name: string, title: string, words: string[], value = settings[name] ?? "", shown = (word: string, _n: number): string => word): JSX.Element => <label class="slider"><span>{title}</span>
    <select value={value} onChange={(event) => set(name, event.currentTarget.value)}>{words.map((one, n) => <option key={one} value={one}>{shown(one, n) || "(none)"}</option>)}</select></label>;
  const slider = (name: string, title: string, least: number, most: number, step: number, shown: string): JSX.Element => <label class="slider"><span>{title}</span><b>{shown}</b>
    <input type="range" min={least} max={most} step={step} value={settings[name]} onInput={(event) => set(name, event.currentTarget.value)} /></label>;
  const levels = ["low", "normal", "high"];
  const save = (): void => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([data!.yaml], { type: "application/yaml" }));
    link.download = "forewatch-try.yaml";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return <div class="page"><h1>Try detection</h1><div class="try">
    <Section title="Settings">
      <div class={over ? "drop over" : "drop"} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
        onDrop={(event) => { event.preventDefault(); setOver(false); take(event.dataTransfer?.files[0]); }}>
        <label>Drop a CSV or Parquet file here, or choose one<br /><input type="file" accept=".csv,.parquet" onChange={(event) => take(event.currentTarget.files?.[0])} /></label></div>
      {streams.length > 0 && <label class="slider"><span>or the recorded points of a stream</span><select value={file || topic ? "" : recorded} onChange={(event) => { if (event.currentTarget.value) begin(null, event.currentTarget.value); }}>
        <option value="">(choose)</option>{streams.map((one) => <option key={one.name}>{one.name}</option>)}</select></label>}
      {kafka.length > 0 && <TopicForm streams={kafka} onChoose={(chosen) => begin(null, "", chosen)} />}
      <h3>Verdicts</h3>
      <label class="slider"><span>Sensitivity</span><b>{settings["sensitivity"]}</b><input type="range" min={0} max={2} step={1} value={levels.indexOf(settings["sensitivity"]!)} aria-valuetext={settings["sensitivity"]} onInput={(event) => set("sensitivity", levels[Number(event.currentTarget.value)]!)} /></label>
      {slider("min_deviation", "Smallest deviation", 0, 1, 0.01, `${Math.round(Number(settings["min_deviation"]) * 100)} %`)}
      {slider("min_points", "Points in a row", 1, 20, 1, settings["min_points"]!)}
      {choice("direction", "Direction", ["both", "up", "down"])}
      {choice("preset", "Kind of data", ["sensor", "network", "stock"], given["preset"] || data?.preset || "sensor")}
      <h3>Season</h3>
      <p class="muted">The time of day and weekends have usual ranges of their own. Other periods are found in the data.</p>
      {choice("timezone", "Days and weeks begin in the time zone", zones(settings["timezone"]!))}
      <label class="slider"><span>Public holidays that are like weekends</span><input type="text" value={settings["holidays"]} pattern={COUNTRY} placeholder="none" title="A country such as US, a part of one such as DE-BY, or none"
        onChange={(event) => { if (event.currentTarget.reportValidity()) set("holidays", event.currentTarget.value || "none"); }} /></label>
      {data && <><h3>Columns</h3>{file && choice("time", "Time", data.columns, data.time)}{choice("values", data.judged.length > 1 ? "Shown value" : "Value", data.numeric, data.values[0])}
        {data.series && choice("show", "Shown series", data.names, data.shown, (name, n) => (data.flagged_of[n] ? `${plain(name)} (${countText(data.flagged_of[n])} flagged)` : plain(name)))}</>}
    </Section>
    <div>
      {error && <ErrorBox error={error} />}
      {!file && !recorded && !topic && <Empty title="See what forewatch would find in your data"><p>Choose a CSV or Parquet file on the left. It goes only to this server and is not kept. Columns are guessed: a time, numeric values, and a text column that names the series.</p><p>Then move the settings: the verdicts follow at once, and the config of what you see can be copied.</p></Empty>}
      {(file || recorded || topic) && !data && !error && <Empty title="Scoring …" />}
      {data && <><Section title={`${countText(data.flagged)} of ${countOf(data.used, "row")} ${data.flagged === 1 ? "is" : "are"} flagged${data.names.length > 1 ? `, ${countText(data.flagged_of[data.names.indexOf(data.shown)])} of them in ${plain(data.shown)}` : ""}`}
        aside={<span class="muted" role="status">{busy ? "Scoring …" : data.used < data.rows ? `the newest ${countText(data.used)} of ${countText(data.rows)} rows` : ""}</span>}><Chart data={data} />
        <p class="muted">Judged by the detector {data.detector}{data.judged.length > 1 && <>, {countText(data.judged.length)} channels together: {data.judged.map((one, n) => <>{n > 0 && ", "}<bdi>{plain(one)}</bdi></>)}</>}. {data.notes.join(" ")}</p></Section>
        <Section title="The config of what you see" aside={<span><button type="button" onClick={save}>Save</button> <CopyButton text={data.yaml} primary /></span>}><pre tabIndex={0} aria-label="YAML">{data.yaml}</pre></Section></>}
    </div></div></div>;
}
