/** Incident: what happened, how unusual it is, what else broke, who got a message, and what to do. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, send, RequestError, useView } from "./api";
import { ageText, durationText, msOf, numberText, zone } from "./format";
import { Empty, Fields, Link, Name, Section, SeverityMark, Shown, Table, When } from "./parts";
import { seriesAddress } from "./route";

export interface Channel { channel: string; unit: string | null; observed: number | null; expected: number | null; lower: number | null; upper: number | null; contribution: number | null }
export interface Anomaly {
  id: string; stream: string; series: string; labels: Record<string, string>; state: string; severity: string; direction: string;
  start: string; peak: string; end: string; points: number; surprise: number | null; ratio: number | null; relative: boolean; cause: string; cause_text: string;
  forecaster: string; model_version: string; revision: number; text: string; channels: Channel[];
}
export interface Labelled extends Anomaly { review: { label: string; author: string; comment: string; at: string } | null }
export interface Alert {
  id: string; stream: string; kind: string; rule: string; group: string; state: string; outcome: string | null; urgency: string; severity: string; count: number; open_count: number;
  opened: string; resolved: string | null; acknowledged: string | null; acknowledged_by: string | null; suppressed_by: string | null; flapping: boolean; notified: string[];
}
export interface Delivery { id: string; alert_id: string; endpoint: string; kind: string; state: string; reason: string | null; attempts: number; created: string; finished: string | null }
export interface Silence { id: string; stream: string | null; match: Record<string, unknown>; starts: string; ends: string; author: string; comment: string }
interface Incident { alert: Alert | null; anomalies: Labelled[]; around: Anomaly[]; deliveries: Delivery[]; silences: Silence[]; endpoints: string[] }

/** Author of the changes that a page makes. */
export const AUTHOR = "dashboard";

/** The figure of the cause on a scale with its usual range. */
function Gauge({ channel }: { channel: Channel }): JSX.Element | null {
  const { observed, lower, upper } = channel;
  if (observed === null || (lower === null && upper === null)) return null;
  const low = lower ?? Math.min(observed, upper!), high = upper ?? Math.max(observed, lower!);
  const least = Math.min(low, observed), most = Math.max(high, observed), room = (most - least || 1) * 0.12;
  const at = (value: number): number => ((value - least + room) / (most - least + 2 * room)) * 1000;
  const unit = channel.unit ? ` ${channel.unit}` : "";
  return <div class="gauge" role="img" aria-label={`${numberText(observed)}${unit}, usual ${numberText(low)} to ${numberText(high)}${unit}`}>
    <svg viewBox="0 0 1000 46" preserveAspectRatio="none" aria-hidden="true">
      <rect x="0" y="14" width="1000" height="14" rx="4" fill="var(--raised2)" />
      <rect x={at(low)} y="14" width={Math.max(3, at(high) - at(low))} height="14" fill="var(--good)" opacity="0.55" />
      <rect x={at(observed) - 2} y="6" width="4" height="30" fill="var(--critical)" />
    </svg>
  </div>;
}

function Shares({ channels }: { channels: Channel[] }): JSX.Element | null {
  if (channels.length < 2) return null;
  const sorted = [...channels].sort((one, other) => (other.contribution ?? 0) - (one.contribution ?? 0));
  return <><h3>Share of each channel</h3>{sorted.map((one) => <div class="share" key={one.channel}>
    <Name text={one.channel} /><meter min={0} max={1} value={one.contribution ?? 0} aria-label={`share of ${one.channel}`} /><span>{numberText((one.contribution ?? 0) * 100, 2)} %</span></div>)}</>;
}

function Actions({ data, anomaly, reload }: { data: Incident; anomaly: Anomaly | undefined; reload: () => void }): JSX.Element {
  const [answer, setAnswer] = useState<{ text: string; failed: boolean } | null>(null);
  const [busy, setBusy] = useState(false);
  const [hours, setHours] = useState(2);
  const run = async (change: () => Promise<string>): Promise<void> => {
    setBusy(true);
    try {
      setAnswer({ text: await change(), failed: false });
      reload();
    } catch (error) {
      setAnswer({ text: error instanceof RequestError ? `${error.title}: ${error.detail}` : String(error), failed: true });
    }
    setBusy(false);
  };
  const label = (word: string): Promise<void> => run(async () => {
    await send("PUT", `anomalies/${anomaly!.id}/label`, { label: word, author: AUTHOR });
    return `Labelled ${word}.`;
  });
  const acknowledge = (): Promise<void> => run(async () => {
    await send("POST", `alerts/${data.alert!.id}/acknowledge`, { author: AUTHOR });
    return "Acknowledged. Receivers are notified, and the alert is not repeated.";
  });
  const silence = (): Promise<void> => run(async () => {
    await send("POST", "silences", { stream: anomaly!.stream, series: anomaly!.series, ends: new Date(Date.now() + hours * 3_600_000).toISOString(), author: AUTHOR });
    return `Alerts of this series are silenced for ${durationText(hours * 3_600_000)}.`;
  });
  const explain = (): Promise<void> => run(async () => (await get<{ text: string }>(`anomalies/${anomaly!.id}/explanation`)).text);
  return <>
    <div class="actions">
      {data.alert && <button type="button" class="primary" disabled={busy || data.alert.state !== "open" || data.alert.acknowledged !== null}
        onClick={() => void acknowledge()}>{data.alert.acknowledged === null ? "Acknowledge" : `Acknowledged by ${data.alert.acknowledged_by ?? ""}`}</button>}
      {anomaly && <>
        <button type="button" disabled={busy} onClick={() => void label("true")}>True anomaly</button>
        <button type="button" disabled={busy} onClick={() => void label("false")}>False alarm</button>
        <button type="button" disabled={busy} onClick={() => void label("maintenance")}>Maintenance</button>
        <button type="button" disabled={busy} onClick={() => void silence()}>Silence this series</button>
        <select aria-label="Duration of the silence" value={hours} onChange={(event) => setHours(Number(event.currentTarget.value))}>
          {[[1, "1 hour"], [2, "2 hours"], [8, "8 hours"], [24, "1 day"], [168, "1 week"]].map(([value, name]) => <option key={value} value={value}>{name}</option>)}</select>
        <button type="button" disabled={busy} onClick={() => void explain()}>Explain</button>
      </>}
    </div>
    <p role="status" class={answer ? (answer.failed ? "failed" : "done") : "hidden"}>{answer?.text.split("\n").map((line) => <span key={line}>{line}<br /></span>)}</p>
  </>;
}

export function IncidentPage({ id }: { id: string }): JSX.Element {
  const view = useView<Incident>(`incidents/${id}`, {}, 15, ["anomaly", "alert", "deliveries"]);
  return <Shown view={view}>{(data) => {
    const anomaly = data.anomalies[0];
    if (!anomaly) return <Empty title="The anomalies of this alert are no longer stored"><p><Link to="/">Open the fleet</Link></p></Empty>;
    const leading = anomaly.channels.reduce((best, one) => ((one.contribution ?? 0) > (best.contribution ?? 0) ? one : best));
    const start = msOf(anomaly.start)!, end = msOf(anomaly.end)!, open = anomaly.state === "open";
    const more = { from: (new Date(start - 3_600_000).toISOString()), to: (new Date(end + 1_800_000).toISOString()) };
    return <div class="page incident">
      <h1><SeverityMark severity={data.alert?.severity ?? anomaly.severity} /> · <Link to={seriesAddress(anomaly.stream, anomaly.series, more)}><Name long text={anomaly.series} /></Link></h1>
      <section class="card">
        <p class="sentence"><bdi>{anomaly.text}</bdi>{open ? ", since " : ", from "}<When ms={start} />{open ? "" : <> for {durationText(end - start)}</>}.</p>
        <Gauge channel={leading} />
        <Actions data={data} anomaly={anomaly} reload={view.reload} />
        {data.silences.length > 0 && <ul>{data.silences.map((one) => <li key={one.id}>A silence of this stream is in force until <When at={one.ends} />, by <Name text={one.author} />.</li>)}</ul>}
      </section>
      <div class="columns">
        <Section title="Why">
          <Fields fields={[["Cause", anomaly.cause_text], ["Size", anomaly.ratio ? `${numberText(anomaly.ratio, 3)} × the half usual range` : `surprise ${numberText(anomaly.surprise, 3)}`],
            ["State", open ? "open" : `ended ${ageText(end)}`], ["Flagged points", numberText(anomaly.points)], ["Forecaster", anomaly.forecaster],
            ["Model", anomaly.model_version], ["Label", anomaly.review ? `${anomaly.review.label}, by ${anomaly.review.author}` : "none yet"], ["Time zone", zone]]} />
          <Shares channels={anomaly.channels} />
        </Section>
        <Section title="Messages">
          {data.alert ? <Fields fields={[["Alert", `${data.alert.state}${data.alert.outcome ? `, ${data.alert.outcome}` : ""}`], ["Rule", <Name text={data.alert.rule} />], ["Urgency", data.alert.urgency],
            ["Suppressed by", data.alert.suppressed_by ?? "nothing"]]} />
            : <p class="muted">{data.endpoints.length ? "No message: the anomaly belongs to no alert." : "The config has no endpoint, so there are no messages."}</p>}
          <Table label="Deliveries" columns={["To", "Message", "State", "Attempts", "At"]} empty="No message was sent." rows={data.deliveries.map((one) => ({ key: one.id,
            cells: [<Name text={one.endpoint} />, one.kind, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, numberText(one.attempts), <When at={one.finished ?? one.created} />] }))} />
        </Section>
        <Section title="What else broke">
          <Table label="Other anomalies" columns={["Severity", "Series", "What", "Since"]} empty="Nothing else within five minutes."
            rows={[...data.anomalies.slice(1), ...data.around].map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} />,
              <Link to={`/anomalies/${one.id}`}><Name text={one.series} /></Link>, <bdi>{one.text}</bdi>, <When at={one.start} />] }))} />
        </Section>
      </div>
    </div>;
  }}</Shown>;
}
