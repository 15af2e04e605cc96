/** Alerting: alerts, silences, endpoints, deliveries, rules, and a preview of other rules. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, post, RequestError, useView } from "./api";
import { ageText, countText } from "./format";
import { Link, Name, Section, SEVERITIES, SeverityMark, Shown, Table, When } from "./parts";

interface Alerting {
  now_ms: number; rules: Record<string, unknown>;
  alerts: { id: string; stream: string; group: string; severity: string; urgency: string; state: string; rule: string; acked_by: string | null; suppressed_by: string | null; count: number; opened_ms: number }[];
  deliveries: { id: string; alert: string; endpoint: string; kind: string; state: string; reason: string | null; attempts: number; created_ms: number }[];
  silences: { id: string; stream: string | null; match: Record<string, unknown>; starts_ms: number; ends_ms: number; author: string; comment: string }[];
  endpoints: { name: string; type: string; pending: number; delivered_ms: number | null; failing_ms: number | null; disabled_ms: number | null; reason: string | null }[];
}
interface Preview { anomalies: number; messages: number; pages: number; dropped: number; by_day: number[]; until_ms: number; examples: { endpoint: string; at_ms: number; title: string }[] }

function PreviewSection({ streams }: { streams: string[] }): JSX.Element {
  const [stream, setStream] = useState(streams[0] ?? "");
  const [notice, setNotice] = useState("warning");
  const [found, setFound] = useState<Preview | null>(null);
  const [error, setError] = useState<RequestError | null>(null);
  const [busy, setBusy] = useState(false);
  const run = async (): Promise<void> => {
    setBusy(true); setError(null);
    try { setFound(await get<Preview>("alerting/preview", { stream, notice })); } catch (failure) { if (failure instanceof RequestError) { setError(failure); setFound(null); } }
    setBusy(false);
  };
  const most = Math.max(1, ...(found?.by_day ?? []));
  return <Section title="Preview: the messages of the last week under another level">
    <div class="bar"><select aria-label="Stream" value={stream} onChange={(event) => setStream(event.currentTarget.value)}>{streams.map((one) => <option key={one}>{one}</option>)}</select>
      <label>send from <select aria-label="Lowest severity that is sent" value={notice} onChange={(event) => setNotice(event.currentTarget.value)}>{SEVERITIES.map((one) => <option key={one}>{one}</option>)}</select> on</label>
      <button type="button" class="primary" disabled={busy} onClick={() => void run()}>{busy ? "Routing …" : "Preview"}</button></div>
    {error && <p class="failed" role="alert">{error.title}: {error.detail}</p>}
    {found && <div role="status"><p><b>{countText(found.messages)} messages</b>, {countText(found.pages)} of them pages, from {countText(found.anomalies)} anomalies; {countText(found.dropped)} in no message. Nothing was sent.</p>
      <svg class="days" viewBox="0 0 280 60" width="280" height="60" role="img" aria-label={`Messages by day: ${found.by_day.join(", ")}`}>{found.by_day.map((count, n) =>
        <rect key={n} x={n * 40} width="34" y={58 - (count / most) * 54} height={(count / most) * 54 + 2} fill="var(--accent)" />)}</svg>
      <Table label="Messages of the preview" columns={["At", "To", "Message"]} empty="No message." rows={found.examples.map((one, n) => ({ key: String(n), cells: [<When ms={one.at_ms} />, <Name text={one.endpoint} />, <bdi>{one.title}</bdi>] }))} /></div>}
  </Section>;
}

export function AlertingPage(): JSX.Element {
  const view = useView<Alerting>("alerting", {}, 10);
  const end = async (id: string): Promise<void> => { await post("incident/end-silence", { silence: id }).catch(() => undefined); view.reload(); };
  return <div class="page"><h1>Alerting</h1><Shown view={view}>{(data) => <>
    <Section title="Alerts"><Table label="Alerts" columns={["Severity", "Series or group", "Stream", "State", "Urgency", "Rule", "Anomalies", "Since"]} empty="No alert is stored."
      rows={data.alerts.map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} />, <Link to={`/alerts/${one.id}`}><Name text={one.group || "all series"} /></Link>, <Name text={one.stream} />,
        `${one.state}${one.acked_by ? `, acknowledged by ${one.acked_by}` : ""}${one.suppressed_by ? `, held by ${one.suppressed_by}` : ""}`, one.urgency, <Name text={one.rule} />, countText(one.count), <When ms={one.opened_ms} />] }))} /></Section>
    <div class="columns">
      <Section title="Silences"><Table label="Silences" columns={["Covers", "Until", "By", ""]} empty="Nothing is silenced. On the page of an incident, “Silence this series” adds one."
        rows={data.silences.map((one) => ({ key: one.id, cells: [<Name text={Object.entries(one.match).map(([name, value]) => `${name}=${String(value)}`).join(", ") || (one.stream ?? "everything")} />, <When ms={one.ends_ms} />, <Name text={one.author} />,
          <button type="button" onClick={() => void end(one.id)} aria-label={`End the silence of ${one.author}`}>End</button>] }))} /></Section>
      <Section title="Endpoints"><Table label="Endpoints" columns={["Name", "Type", "Health", "Waiting", "Last delivery"]} empty="The config has no endpoint: anomalies are stored, but nobody is notified."
        rows={data.endpoints.map((one) => ({ key: one.name, cells: [<Name text={one.name} />, one.type, one.disabled_ms !== null ? <span class="failed">disabled: {one.reason}</span> : one.failing_ms !== null ? <span class="failed">fails since <When ms={one.failing_ms} /></span> : <span class="done">works</span>,
          countText(one.pending), ageText(one.delivered_ms, data.now_ms)] }))} /></Section>
    </div>
    <PreviewSection streams={Object.keys(data.rules)} />
    <Section title="Deliveries"><Table label="Deliveries" columns={["Created", "To", "Message", "State", "Attempts", "Alert"]} empty="No delivery is stored."
      rows={data.deliveries.map((one) => ({ key: one.id, cells: [<When ms={one.created_ms} />, <Name text={one.endpoint} />, one.kind, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, countText(one.attempts), <Link to={`/alerts/${one.alert}`}>{one.alert.slice(0, 8)}</Link>] }))} /></Section>
    <Section title="Rules in force"><pre tabIndex={0} aria-label="Rules">{JSON.stringify(data.rules, null, 2)}</pre></Section>
  </>}</Shown></div>;
}
