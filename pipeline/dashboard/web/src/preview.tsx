/** Preview: the messages of the last week under changed rules or another sensitivity. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, RequestError, send } from "./api";
import { countOf, countText } from "./format";
import { CopyButton, Name, Section, Table, When } from "./parts";

interface Preview { anomalies: number; messages: number; pages: number; dropped: number; by_day: number[]; since: string; examples: { endpoint: string; at: string; title: string }[] }
interface Rules { rules: string; sensitivity: string | null }

const SENSITIVITIES = ["low", "normal", "high"];

function Days({ now, changed, since }: { now: Preview; changed: Preview; since: string }): JSX.Element {
  const most = Math.max(1, ...now.by_day, ...changed.by_day), begin = Date.parse(since);
  const day = (n: number): string => new Date(begin + (n + 0.5) * 86_400_000).toLocaleDateString(undefined, { weekday: "short" });
  const bar = (counts: number[], n: number, x: number, fill: string): JSX.Element => <rect x={n * 52 + x} width="20" y={62 - (counts[n]! / most) * 56} height={(counts[n]! / most) * 56 + 2} fill={fill} />;
  return <svg class="days" viewBox="0 0 364 80" width="364" height="80" role="img" aria-label={`Messages by day: ${now.by_day.join(", ")}; with the change: ${changed.by_day.join(", ")}`}>
    {now.by_day.map((_, n) => <g key={n}>{bar(now.by_day, n, 2, "var(--info)")}{bar(changed.by_day, n, 24, "var(--accent)")}<text x={n * 52 + 23} y="78" text-anchor="middle" font-size="11" fill="var(--muted)">{day(n)}</text></g>)}</svg>;
}

function difference(now: number, changed: number): string {
  return changed === now ? "as many as now" : `${countText(Math.abs(changed - now))} ${changed > now ? "more" : "fewer"} than now`;
}

export function PreviewSection({ streams }: { streams: string[] }): JSX.Element {
  const [stream, setStream] = useState(streams[0] ?? "");
  const [inForce, setInForce] = useState<Rules | null>(null);
  const [rules, setRules] = useState("");
  const [sensitivity, setSensitivity] = useState("");
  const [found, setFound] = useState<{ now: Preview; changed: Preview } | null>(null);
  const [error, setError] = useState<RequestError | null>(null);
  const [busy, setBusy] = useState(false);
  const path = `streams/${encodeURIComponent(stream)}`;
  const edited = useRef(false), shown = useRef(stream);
  shown.current = stream;
  useEffect(() => {
    const control = new AbortController();
    edited.current = false;
    setFound(null);
    setError(null);
    get<Rules>(`${path}/rules`, {}, control.signal).then((read) => { setInForce(read); if (!edited.current) setRules(read.rules); },
      (failure: unknown) => { if (failure instanceof RequestError) setInForce(null); });
    return () => control.abort();
  }, [stream]);
  const write = (text: string): void => { edited.current = true; setRules(text); };
  const run = async (): Promise<void> => {
    setBusy(true); setError(null);
    try {
      const now = await get<Preview>(`${path}/preview`);
      const changed = await send<Preview>("POST", `${path}/preview`, { rules, sensitivity: sensitivity || null });
      if (shown.current === stream) setFound({ now, changed });
    } catch (failure) { if (failure instanceof RequestError && shown.current === stream) { setError(failure); setFound(null); } }
    setBusy(false);
  };
  return <Section title="Preview: the messages of the last week under changed rules">
    <div class="preview">
      <div>
        <div class="bar"><label>Stream <select value={stream} onChange={(event) => setStream(event.currentTarget.value)}>{streams.map((one) => <option key={one}>{one}</option>)}</select></label>
          <label>Sensitivity <select value={sensitivity} onChange={(event) => setSensitivity(event.currentTarget.value)}><option value="">as configured{inForce?.sensitivity ? ` (${inForce.sensitivity})` : ""}</option>
            {SENSITIVITIES.map((one) => <option key={one}>{one}</option>)}</select></label></div>
        <label class="block"><span>Rules: the block <code>alerts</code> of the stream</span><textarea rows={9} spellcheck={false} value={rules} placeholder={"severity: {notice: major}\nrules:\n- match: {series: test*}\n  drop: true"} onInput={(event) => write(event.currentTarget.value)} /></label>
        <div class="actions"><button type="button" class="primary" disabled={busy} onClick={() => void run()}>{busy ? "Routing …" : "Preview"}</button>
          <button type="button" disabled={!inForce || rules === inForce.rules} onClick={() => setRules(inForce!.rules)}>Rules in force</button><CopyButton text={rules} /></div>
      </div>
      <div role="status">{error ? <p class="failed" role="alert">{error.title}: {error.detail}</p> : found ? <>
        <p><b>{countOf(found.changed.messages, "message")}</b>, {difference(found.now.messages, found.changed.messages)}; {countOf(found.changed.pages, "page")} among them ({difference(found.now.pages, found.changed.pages)}). {countOf(found.changed.anomalies, "anomaly", "anomalies")}, {countText(found.changed.dropped)} in no message. Nothing was sent.</p>
        <p class="legend"><span><span class="key former" /> rules in force</span><span><span class="key changed" /> with the change</span></p>
        <Days now={found.now} changed={found.changed} since={found.changed.since} />
      </> : <p class="muted">Change the rules or the sensitivity. The anomalies of the last seven days are routed again, on a clock of their own; another sensitivity scores the newest recorded points again.</p>}</div>
    </div>
    {found && <Table label="Messages of the preview" columns={["At", "To", "Message"]} empty="No message." rows={found.changed.examples.map((one, n) => ({ key: String(n), cells: [<When at={one.at} />, <Name text={one.endpoint} />, <bdi>{one.title}</bdi>] }))} />}
  </Section>;
}
