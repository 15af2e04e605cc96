/** Try: a file is scored at once, with sliders, and the config of what is shown can be copied. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { RequestError, upload, useView, type Page } from "./api";
import { axisLabels, countOf, countText, valueLabels, zone } from "./format";
import { colour, useThemeChange } from "./marks";
import { CopyButton, Empty, ErrorBox, plain, Section } from "./parts";

interface Tried {
  rows: number; used: number; columns: string[]; numeric: string[]; time: string; series: string; values: string[]; names: string[]; flagged_of: number[]; shown: string; flagged: number; preset: string; detector: string; judged: string[]; notes: string[]; settings: Settings;
  time_ms: number[]; observed: (number | null)[]; expected: (number | null)[]; lower: (number | null)[]; upper: (number | null)[]; flags: number[]; yaml: string;
}
type Settings = Record<string, string>;

function optionsOf(data: Tried, width: number): uPlot.Options {
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 } }, hidden = { stroke: "transparent", points: { show: false } };
  return {
    width, height: 340, axes: [{ ...axis, values: axisLabels, space: 80 }, { ...axis, values: valueLabels, size: 62 }],
    series: [{}, { label: "upper", ...hidden }, { label: "lower", ...hidden }, { label: "expected", stroke: colour("--expected"), dash: [4, 3], points: { show: false } },
      { label: plain(data.values[0]!), stroke: colour("--observed"), width: 1.5, points: { show: false } },
      { label: "flagged", stroke: colour("--critical"), paths: () => null, points: { show: true, size: 7, fill: colour("--critical") } }],
    bands: [{ series: [1, 2], fill: colour("--interval") }],
  };
}

function Chart({ data }: { data: Tried }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const theme = useThemeChange();
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined; // the page was left before this ran
    const plot = new uPlot(optionsOf(data, element.clientWidth),
      [data.time_ms.map((ms) => ms / 1000), data.upper, data.lower, data.expected, data.observed, data.observed.map((value, n) => (data.flags[n] ? value : null))], element);
    const watcher = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: plot.height }));
    watcher.observe(element);
    return () => { watcher.disconnect(); plot.destroy(); };
  }, [data, theme]);
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

const LEVELS = ["low", "normal", "high"];
const PRESETS = ["sensor", "network", "stock"];

/** What is judged: a file, the recorded points of a stream, or a topic. */
interface Input { file: File | null; stream: string; topic: Topic | null }

/** The verdicts on an input with some settings; they follow each change. */
function useTried({ file, stream, topic }: Input, given: Settings): { data: Tried | null; error: RequestError | null; busy: boolean } {
  const [state, setState] = useState<{ of: unknown; data: Tried | null; error: RequestError | null }>({ of: null, data: null, error: null });
  const [busy, setBusy] = useState(false);
  const of = file ?? topic ?? stream;
  useEffect(() => {
    if (!of) return undefined;
    const control = new AbortController();
    setBusy(true);
    const timer = window.setTimeout(() => {
      const { time, series, ...of_topic } = given;
      const answer = topic ? upload<Tried>("try/topic", { ...of_topic, ...topic }, new Blob(), control.signal)
        : upload<Tried>("try", { ...given, stream: file ? "" : stream }, file ?? new Blob(), control.signal);
      answer.then(
        (data) => { setState({ of, data, error: null }); setBusy(false); },
        (error: unknown) => { if (error instanceof RequestError) { setState((old) => ({ of, data: old.of === of ? old.data : null, error })); setBusy(false); } });
    }, 200);
    return () => { window.clearTimeout(timer); control.abort(); };
  }, [of, given]);
  // The answer to another input is none.
  return state.of === of ? { ...state, busy } : { data: null, error: null, busy };
}

interface FormProps { data: Tried | null; given: Settings; settings: Settings; set: (name: string, value: string) => void }

function Choice({ title, words, value, shown = (word) => word, onChoose }: {
  title: string; words: string[]; value: string; shown?: (word: string, at: number) => string; onChoose: (word: string) => void;
}): JSX.Element {
  return <label class="slider"><span>{title}</span>
    <select value={value} onChange={(event) => onChoose(event.currentTarget.value)}>{words.map((one, n) => <option key={one} value={one}>{shown(one, n) || "(none)"}</option>)}</select></label>;
}

function Slider({ title, value, most, step, shown, onSlide }: { title: string; value: string; most: [number, number]; step: number; shown: string; onSlide: (value: string) => void }): JSX.Element {
  return <label class="slider"><span>{title}</span><b>{shown}</b>
    <input type="range" min={most[0]} max={most[1]} step={step} value={value} aria-valuetext={shown} onInput={(event) => onSlide(event.currentTarget.value)} /></label>;
}

/** Settings of the verdicts: how easily, which way, and by which season. */
function SettingsForm({ data, given, settings, set }: FormProps): JSX.Element {
  const of = (name: string): string => settings[name] ?? "";
  return <>
    <h3>Verdicts</h3>
    <Slider title="Sensitivity" value={String(LEVELS.indexOf(of("sensitivity")))} most={[0, 2]} step={1} shown={of("sensitivity")} onSlide={(at) => set("sensitivity", LEVELS[Number(at)]!)} />
    <Slider title="Smallest deviation from the expected value" value={of("min_deviation")} most={[0, 1]} step={0.01} shown={`${Math.round(Number(of("min_deviation")) * 100)} %`} onSlide={(value) => set("min_deviation", value)} />
    <Slider title="Points in a row" value={of("min_points")} most={[1, 20]} step={1} shown={of("min_points")} onSlide={(value) => set("min_points", value)} />
    <Choice title="Direction" words={["both", "up", "down"]} value={of("direction")} onChoose={(word) => set("direction", word)} />
    <Choice title="Kind of data" words={PRESETS} value={given["preset"] || data?.preset || "sensor"} onChoose={(word) => set("preset", word)} />
    <h3>Season</h3>
    <p class="muted">The time of day and weekends have usual ranges of their own. Other periods are found in the data.</p>
    <Choice title="Days and weeks begin in the time zone" words={zones(of("timezone"))} value={of("timezone")} onChoose={(word) => set("timezone", word)} />
    <label class="slider"><span>Public holidays that are like weekends</span><input type="text" value={settings["holidays"]} pattern={COUNTRY} placeholder="none" title="A country such as US, a part of one such as DE-BY, or none"
      onChange={(event) => { if (event.currentTarget.reportValidity()) set("holidays", event.currentTarget.value || "none"); }} /></label>
  </>;
}

/** Columns of the input that are judged and shown. */
function ColumnsForm({ data, withTime, set }: { data: Tried; withTime: boolean; set: FormProps["set"] }): JSX.Element {
  const seriesText = (name: string, n: number): string => (data.flagged_of[n] ? `${plain(name)} (${countText(data.flagged_of[n])} flagged)` : plain(name));
  return <><h3>Columns</h3>
    {withTime && <Choice title="Time" words={data.columns} value={data.time} onChoose={(word) => set("time", word)} />}
    <Choice title={data.judged.length > 1 ? "Shown value" : "Value"} words={data.numeric} value={data.values[0] ?? ""} onChoose={(word) => set("values", word)} />
    {data.series && <Choice title="Shown series" words={data.names} value={data.shown} shown={seriesText} onChoose={(word) => set("show", word)} />}</>;
}

function InputForm({ input, begin }: { input: Input; begin: (input: Partial<Input>) => void }): JSX.Element {
  const [over, setOver] = useState(false);
  const streams = useView<Page<{ name: string }>>("streams", {}, 60).data?.items ?? [];
  const config = useView<{ config: { streams: Record<string, { source: { kafka?: unknown } }> } }>("config", {}, 600).data;
  const kafka = Object.entries(config?.config.streams ?? {}).filter(([, one]) => one.source.kafka).map(([name]) => name);
  const take = (file: File | undefined): void => { if (file) begin({ file }); };
  return <>
    <div class={over ? "drop over" : "drop"} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); take(event.dataTransfer?.files[0]); }}>
      <label>Drop a CSV or Parquet file here, or choose one<br /><input type="file" accept=".csv,.parquet" onChange={(event) => take(event.currentTarget.files?.[0])} /></label></div>
    {streams.length > 0 && <label class="slider"><span>or the recorded points of a stream</span><select value={input.file || input.topic ? "" : input.stream} onChange={(event) => { if (event.currentTarget.value) begin({ stream: event.currentTarget.value }); }}>
      <option value="">(choose)</option>{streams.map((one) => <option key={one.name}>{one.name}</option>)}</select></label>}
    {kafka.length > 0 && <TopicForm streams={kafka} onChoose={(topic) => begin({ topic })} />}
  </>;
}

function saveYaml(yaml: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([yaml], { type: "application/yaml" }));
  link.download = "forewatch-try.yaml";
  link.click();
  URL.revokeObjectURL(link.href);
}

function Result({ data, busy }: { data: Tried; busy: boolean }): JSX.Element {
  const ofShown = data.names.length > 1 ? `, ${countText(data.flagged_of[data.names.indexOf(data.shown)])} of them in ${plain(data.shown)}` : "";
  return <>
    <Section title={`${countText(data.flagged)} of ${countOf(data.used, "row")} ${data.flagged === 1 ? "is" : "are"} flagged${ofShown}`}
      aside={<span class="muted" role="status">{busy ? "Scoring …" : data.used < data.rows ? `the newest ${countText(data.used)} of ${countText(data.rows)} rows` : ""}</span>}>
      <h3><bdi>{plain(data.values[0] ?? "")}</bdi></h3>
      <Chart data={data} />
      <p class="muted">Judged by the detector {data.detector}{data.judged.length > 1 && <>, {countText(data.judged.length)} channels together: {data.judged.map((one, n) => <>{n > 0 && ", "}<bdi>{plain(one)}</bdi></>)}</>}. {data.notes.join(" ")}</p></Section>
    <Section title="The config of what you see" aside={<span><button type="button" onClick={() => saveYaml(data.yaml)}>Save</button> <CopyButton text={data.yaml} primary /></span>}><pre tabIndex={0} aria-label="YAML">{data.yaml}</pre></Section></>;
}

export function TryPage({ query }: { query: URLSearchParams }): JSX.Element {
  const asked = query.get("stream") ?? "";
  const [input, setInput] = useState<Input>({ file: null, stream: asked, topic: null });
  const [given, setSettings] = useState<Settings>(asked ? { show: query.get("series") ?? "", values: query.get("channel") ?? "" } : DEFAULTS);
  const { data, error, busy } = useTried(input, given);
  const settings: Settings = { ...DEFAULTS, ...data?.settings, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value)) };
  const begin = (chosen: Partial<Input>): void => {
    setSettings(chosen.stream ? {} : { ...DEFAULTS, ...settings, preset: chosen.topic ? "" : settings["preset"]!, time: "", series: "", values: "", show: "" });
    setInput({ file: null, stream: "", topic: null, ...chosen });
  };
  const set = (name: string, value: string): void => { setSettings((old) => ({ ...old, [name]: value })); };
  const isChosen = input.file !== null || input.topic !== null || input.stream !== "";
  return <div class="page"><h1>Try detection</h1><div class="try">
    <Section title="Settings">
      <InputForm input={input} begin={begin} />
      <SettingsForm data={data} given={given} settings={settings} set={set} />
      {data && <ColumnsForm data={data} withTime={input.file !== null} set={set} />}
    </Section>
    <div>
      {error && <ErrorBox error={error} />}
      {!isChosen && <Empty title="See what forewatch would find in your data"><p>Choose a CSV or Parquet file on the left. It goes only to this server and is not kept. Columns are guessed: a time, numeric values, and a text column that names the series.</p><p>Then move the settings: the verdicts follow at once, and the config of what you see can be copied.</p></Empty>}
      {isChosen && !data && !error && <Empty title="Scoring …" />}
      {data && <Result data={data} busy={busy} />}
    </div></div></div>;
}
