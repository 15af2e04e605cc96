/** Incident: what happened, how unusual it is, what else broke, who got a message, and what to do. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, send, useView } from "./api";
import { durationOf, rarityText } from "./advice";
import { ConfirmButton, errorText } from "./confirm";
import { ageText, bothTimes, countOf, countText, durationText, msOf, numberText, zone } from "./format";
import { later } from "./later";
import { Empty, Fields, Link, Name, plain, Section, SeverityMark, Shown, Table, When } from "./parts";
import { seriesAddress, tryAddress } from "./route";
import { useRefusal } from "./session";
import { EventStory, type EventView } from "./sequence";

export interface Channel { channel: string; unit: string | null; observed: number | null; expected: number | null; lower: number | null; upper: number | null; contribution: number | null }
export interface Anomaly {
  id: string; stream: string; series: string; labels: Record<string, string>; state: string; severity: string; direction: string;
  start: string; peak: string; end: string; points: number; readings: number; surprise: number | null; ratio: number | null; relative: boolean; of_value: boolean; cause: string; cause_text: string;
  forecaster: string; model_version: string; revision: number; revised: string | null; text: string; severity_reason: string; first_step: string; channels: Channel[]; event: EventView | null;
  relation: { text: string } | null;
}
export interface Labelled extends Anomaly { review: { label: string; author: string; comment: string; at: string } | null }
export interface Alert {
  id: string; stream: string; kind: string; rule: string; group: string; state: string; outcome: string | null; urgency: string; severity: string; count: number; open_count: number;
  opened: string; resolved: string | null; acknowledged: string | null; acknowledged_by: string | null; suppressed_by: string | null; flapping: boolean; notified: string[];
}
export interface Delivery { id: string; alert_id: string; endpoint: string; kind: string; state: string; reason: string | null; attempts: number; created: string; finished: string | null }
export interface Silence { id: string; stream: string | null; match: Record<string, unknown>; starts: string; ends: string; author: string; comment: string }
interface Incident { alert: Alert | null; anomalies: Labelled[]; around: Anomaly[]; deliveries: Delivery[]; silences: Silence[]; endpoints: string[]; faults: { kind: string; message: string; started: string; ended: string | null }[] }

/** What a silence covers, in words. */
export function coverText(one: { stream: string | null; match: Record<string, unknown> }): string {
  return Object.entries(one.match).map(([name, value]) => `${name}=${String(value).replace(/\[([*?[])\]/g, "$1")}`).join(", ") || (one.stream === null ? "everything" : `all series of ${one.stream}`);
}

/** Author of the changes that a page makes. */
export const AUTHOR = "dashboard";

/** What the figure of a cause measures, where it is not the value itself. */
const QUANTITIES: Record<string, (name: string) => string> = {
  unusual_level: (name) => `Mean of the last readings of ${name}`,
  unusual_step: (name) => `Change of ${name} from one reading to the next`,
  unusual_noise: (name) => `Mean size of the last changes of ${name}`,
  flatline: (name) => `Readings of ${name} without a change`,
};

/** The figure of the cause on a scale with its usual range. */
function Gauge({ channel, relative, cause, causeText }: { channel: Channel; relative: boolean; cause: string; causeText: string }): JSX.Element | null {
  const { observed, lower, upper } = channel;
  if (observed === null || (lower === null && upper === null)) return null;
  const low = lower ?? Math.min(observed, upper!), high = upper ?? Math.max(observed, lower!);
  const least = Math.min(low, observed), most = Math.max(high, observed), room = (most - least || 1) * 0.12;
  const at = (value: number): number => ((value - least + room) / (most - least + 2 * room)) * 100;
  const unit = relative ? " %" : cause === "flatline" ? " readings" : channel.unit ? ` ${channel.unit}` : "";
  const quantity = plain(QUANTITIES[cause]?.(channel.channel) ?? channel.channel);
  const text = (value: number): string => `${numberText(relative ? value * 100 : value, relative ? 3 : 4)}${unit}`;
  return <figure class="gauge" role="img" aria-label={`${quantity}: ${text(observed)}, usual ${text(low)} to ${text(high)}`}>
    <div class="scale"><span class="usual" style={{ left: `${at(low)}%`, width: `${Math.max(0.4, at(high) - at(low))}%` }} /><span class="now" style={{ left: `${at(observed)}%` }} /></div>
    <div class="marks" aria-hidden="true"><b style={{ left: `${Math.min(94, Math.max(4, at(observed)))}%` }}>{text(observed)}</b></div>
    <figcaption aria-hidden="true"><bdi>{quantity}</bdi>: <span class="pair"><span class="key usual" /> usual or expected: {text(low)} to {text(high)}</span> <span class="pair"><span class="key now" /> observed: {text(observed)}</span>{observed >= low && observed <= high && <>. The value itself is inside this range; the reason is another quantity: {causeText}</>}</figcaption>
  </figure>;
}

function Shares({ channels }: { channels: Channel[] }): JSX.Element | null {
  if (channels.length < 2) return null;
  const sorted = [...channels].sort((one, other) => (other.contribution ?? 0) - (one.contribution ?? 0));
  return <><h3>Share of each channel</h3>{sorted.map((one) => <div class="share" key={one.channel}>
    <Name text={one.channel} /><meter min={0} max={1} value={one.contribution ?? 0} aria-label={`share of ${one.channel}`} /><span>{numberText((one.contribution ?? 0) * 100, 2)} %</span></div>)}</>;
}

const HOURS: [number, string][] = [[1, "1 hour"], [2, "2 hours"], [8, "8 hours"], [24, "1 day"], [168, "1 week"]];

function CommentField({ value, onChange }: { value: string; onChange: (text: string) => void }): JSX.Element {
  return <label class="slider"><span>Comment (optional)</span><input type="text" value={value} maxLength={500} onInput={(event) => onChange(event.currentTarget.value)} /></label>;
}

function SilenceButton({ anomaly, disabled, reload }: { anomaly: Anomaly; disabled: boolean; reload: () => void }): JSX.Element {
  const [hours, setHours] = useState(2);
  const [comment, setComment] = useState("");
  const silence = async (): Promise<string> => {
    const ends = Date.now() + hours * 3_600_000;
    await send("POST", "silences", { stream: anomaly.stream, series: anomaly.series, ends: new Date(ends).toISOString(), author: AUTHOR, comment });
    reload();
    return `Alerts of this series are silenced until ${bothTimes(ends)}. The page Alerting can end the silence.`;
  };
  return <ConfirmButton label="Silence this series" title="Silence this series?" disabled={disabled} run={silence}>
    <p><Name text={anomaly.series} long />: anomalies are still found and stored, but no message is sent.</p>
    <label class="slider"><span>For</span><select aria-label="Duration of the silence" value={hours} onChange={(event) => setHours(Number(event.currentTarget.value))}>
      {HOURS.map(([value, name]) => <option key={value} value={value}>{name}</option>)}</select></label><CommentField value={comment} onChange={setComment} /></ConfirmButton>;
}

function Actions({ data, anomaly, channel, reload }: { data: Incident; anomaly: Anomaly; channel: string; reload: () => void }): JSX.Element {
  const [answer, setAnswer] = useState<{ text: string; failed: boolean } | null>(null);
  const [busy, setBusy] = useState(false);
  const [comment, setComment] = useState("");
  const refusal = useRefusal();
  const fixed = { disabled: busy || refusal !== undefined, title: refusal };
  const run = async (change: () => Promise<string>): Promise<void> => {
    setBusy(true);
    try {
      setAnswer({ text: await change(), failed: false });
      reload();
    } catch (error) {
      setAnswer({ text: errorText(error), failed: true });
    }
    setBusy(false);
  };
  const label = async (word: string, comment = ""): Promise<string> => {
    await send("PUT", `anomalies/${anomaly.id}/label`, { label: word, author: AUTHOR, comment });
    return `Labelled ${word}.`;
  };
  const acknowledge = (): Promise<void> => run(async () => {
    await send("POST", `alerts/${data.alert!.id}/acknowledge`, { author: AUTHOR });
    return "Acknowledged. Receivers are notified, and the alert is not repeated.";
  });
  const explain = (): Promise<void> => run(async () => (await get<{ text: string }>(`anomalies/${anomaly.id}/explanation`)).text);
  return <>
    <div class="actions">
      {data.alert && (data.alert.state === "open" || data.alert.acknowledged !== null) && <button type="button" class="primary" title={refusal} disabled={fixed.disabled || data.alert.state !== "open" || data.alert.acknowledged !== null}
        onClick={() => void acknowledge()}>{data.alert.acknowledged === null ? "Acknowledge" : `Acknowledged by ${data.alert.acknowledged_by ?? ""}`}</button>}
      <button type="button" {...fixed} onClick={() => void run(() => label("true"))}>True anomaly</button>
      <ConfirmButton label="False alarm" title="Label as a false alarm?" disabled={busy} run={async () => { const text = await label("false", comment); reload(); return `${text} Its alert is retracted.`; }}>
        <p>The alert is retracted: its receivers get a message. Training uses these points as normal ones again. A later label replaces this one.</p><CommentField value={comment} onChange={setComment} /></ConfirmButton>
      <button type="button" {...fixed} onClick={() => void run(() => label("maintenance"))}>Maintenance</button>
      <SilenceButton anomaly={anomaly} disabled={busy} reload={reload} />
      <button type="button" disabled={busy} onClick={() => void explain()}>Check again</button>
      {!anomaly.event && <Link to={tryAddress(anomaly.stream, anomaly.series, channel)} class="button">Try other settings</Link>}
    </div>
    {refusal && <p class="muted">{refusal}</p>}
    <p role="status" class={answer ? (answer.failed ? "failed" : "done") : "hidden"}>{answer?.text.split("\n").map((line) => <span key={line}>{line}<br /></span>)}</p>
  </>;
}

/** The series around an anomaly; its library is loaded with it. */
const AroundChart = later<{ anomaly: Anomaly; channel: string }>(() => import("./around").then((found) => found.AroundChart));

function FaultIncident({ data }: { data: Incident }): JSX.Element {
  const alert = data.alert!;
  return <div class="page incident">
    <h1><SeverityMark severity={alert.severity} /> · Fault of the pipeline · <Name long text={alert.stream} /></h1>
    <section class="card">
      {data.faults.length ? data.faults.map((one) => <p class="sentence" key={`${one.kind}${one.started}`}><b>{one.kind.replaceAll("_", " ")}</b>: <bdi>{one.message}</bdi> {one.ended ? <>It ended at {bothTimes(Date.parse(one.ended))}.</> : <>It has lasted since {bothTimes(Date.parse(one.started))}.</>}</p>)
        : <p class="sentence">The anomalies or faults of this alert are no longer stored.</p>}
      <p>While a fault lasts, the monitoring itself is incomplete. <Link to="/system">System</Link> shows partitions, owners and all faults.</p>
    </section>
    <Messages data={data} />
  </div>;
}

function Messages({ data }: { data: Incident }): JSX.Element {
  return <Section title="Messages">
    {data.alert ? <Fields fields={[["Alert", `${data.alert.state}${data.alert.outcome ? `, ${data.alert.outcome}` : ""}`], ["Rule", <Name text={data.alert.rule} />], ["Urgency", data.alert.urgency],
      ["Held back by", data.alert.suppressed_by ?? "nothing"]]} />
      : <p class="muted">{data.endpoints.length ? "No message: the severity is below the level of messages, or a rule drops it." : "The config has no endpoint, so there are no messages."}</p>}
    {data.alert && <Table label="Deliveries" columns={["To", "Message", "State", "Attempts", "At"]} empty="No message was sent." rows={data.deliveries.map((one) => ({ key: one.id,
      cells: [<Name text={one.endpoint} />, one.kind, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, numberText(one.attempts), <When at={one.finished ?? one.created} />] }))} />}
  </Section>;
}

function AnomalyIncident({ data, anomaly, reload }: { data: Incident; anomaly: Labelled; reload: () => void }): JSX.Element {
  const leading = anomaly.channels.reduce((best, one) => ((one.contribution ?? 0) > (best.contribution ?? 0) ? one : best));
  const start = msOf(anomaly.start)!, end = msOf(anomaly.end)!, open = anomaly.state === "open", retracted = anomaly.points === 0;
  const more = { from: new Date(start - 3_600_000).toISOString(), to: new Date(end + 1_800_000).toISOString() };
  const others = [...data.anomalies.slice(1), ...data.around];
  return <div class="page incident">
    <h1><SeverityMark severity={data.alert?.severity ?? anomaly.severity} /> · <Link to={seriesAddress(anomaly.stream, anomaly.series, more)}><Name long text={anomaly.series} /></Link> <span class="muted">· <bdi>{anomaly.stream}</bdi></span> {open
      ? <span class="badge bad">open{end > start ? ` for ${durationText(end - start)}` : ""}</span> : retracted ? <span class="badge">retracted</span> : <span class="badge">ended {ageText(end)}</span>}</h1>
    <section class="card">
      <p class="sentence"><bdi>{anomaly.text}</bdi>{open ? <>, since {bothTimes(start)}</> : end > start ? <>. It began at {bothTimes(start)} and lasted {durationOf(anomaly)}</> : <>. It was at {bothTimes(start)} ({durationOf(anomaly)})</>}.</p>
      {retracted && <p><b>This verdict is retracted:</b> with the late points that came{anomaly.revised && <> until <When at={anomaly.revised} /></>}, the series was as usual.</p>}
      {anomaly.severity_reason && <p>Severity: {anomaly.severity_reason}.</p>}
      {anomaly.event ? <EventStory event={anomaly.event} cause={anomaly.cause} /> : <Gauge channel={leading} relative={anomaly.relative} cause={anomaly.cause} causeText={anomaly.cause_text} />}
      {anomaly.relation && <p>At the peak: <bdi>{anomaly.relation.text}</bdi>.</p>}
      <AroundChart key={anomaly.id} anomaly={anomaly} channel={leading.channel} />
    </section>
    <Section title="What to do">
      <p><bdi>{anomaly.first_step}</bdi>{others.length > 0 && <> {countOf(others.length, "other anomaly was", "other anomalies were")} there at the same time (below): look for a common cause.</>}</p>
      <Actions data={data} anomaly={anomaly} channel={leading.channel} reload={reload} />
      {data.silences.length > 0 && <ul>{data.silences.map((one) => <li key={one.id}>Silenced until <When at={one.ends} /> by <Name text={one.author} />: <Name text={coverText(one)} />. <Link to="/alerting">Alerting</Link> can end it.</li>)}</ul>}
    </Section>
    <div class="columns">
      <Section title="Why, and how sure">
        <Fields fields={[["Cause", anomaly.cause_text], ["How unusual", rarityText(anomaly)],
          [anomaly.event ? "Unexpected events" : "Readings outside", countText(anomaly.readings)], ["Forecaster", anomaly.forecaster.replaceAll("_", " ")],
          ["Model", anomaly.model_version], ...(anomaly.revised && !retracted ? [["Changed by late points", <When at={anomaly.revised} />] as [string, JSX.Element]] : []), ["Label", anomaly.review ? `${anomaly.review.label}, by ${anomaly.review.author}${anomaly.review.comment ? `: ${anomaly.review.comment}` : ""}` : "none yet"]]} />
        <Shares channels={anomaly.channels} />
      </Section>
      <Messages data={data} />
      <Section title="What else broke">
        <Table label="Other anomalies" columns={["", "Series", "What", "Since"]} empty="Nothing else within five minutes."
          rows={others.map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} text={false} />,
            <Link to={`/anomalies/${one.id}`}><Name text={one.series} /></Link>, <bdi>{one.text}</bdi>, <When at={one.start} />] }))} />
      </Section>
    </div>
  </div>;
}

export function IncidentPage({ id }: { id: string }): JSX.Element {
  const view = useView<Incident>(`incidents/${id}`, { timezone: zone }, 15, ["anomaly", "alert", "deliveries"]);
  if (view.data === null && view.error?.status === 404) {
    return <div class="page"><h1 class="hidden">Incident</h1><Empty title="There is no such incident"><p>No alert and no anomaly has the id <code>{id}</code>. It may be older than what is kept, of another database, or of a stream that you may not see.</p>
      <p class="actions"><Link to="/" class="button">Fleet</Link><Link to="/alerting" class="button">Alerting</Link></p></Empty></div>;
  }
  return <>{view.data === null && <h1 class="hidden">Incident</h1>}<Shown view={view}>{(data) => {
    const anomaly = data.anomalies[0];
    if (!anomaly) return data.alert ? <FaultIncident data={data} /> : <Empty title="There is no such incident"><p><Link to="/">Open the fleet</Link></p></Empty>;
    return <AnomalyIncident data={data} anomaly={anomaly} reload={view.reload} />;
  }}</Shown></>;
}
