/** Alerting: alerts, silences, endpoints, deliveries, rules, and a preview of other rules. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { send, useView, type Page } from "./api";
import { SilenceCalendar } from "./calendar";
import { ConfirmButton } from "./confirm";
import { ageText, countText, msOf, numberText } from "./format";
import { coverText, type Alert, type Delivery, type Silence } from "./incident";
import { PayloadButton } from "./payload";
import { PreviewSection } from "./preview";
import { Link, More, Name, Section, SeverityMark, Shown, Table, When } from "./parts";

interface Endpoint { name: string; type: string; pending: number; delivered: string | null; failing: string | null; disabled: string | null; reason: string | null }
interface Budget { stream: string; per_day: number | null; team: string | null; alerts: number; pages: number; messages: number }
interface ConfigView { config: { streams: Record<string, { alerts?: unknown }> } }
/** A tree as YAML. A text that YAML could take for something else is quoted. */
function yamlText(value: unknown, indent = ""): string {
  if (value === null || typeof value !== "object") return typeof value === "string" && !/^[A-Za-z][\w ./*@°-]*$/.test(value) ? JSON.stringify(value) : String(value);
  if (Array.isArray(value)) return value.map((one) => `\n${indent}- ${yamlText(one, `${indent}  `).trimStart()}`).join("");
  return Object.entries(value).map(([name, one]) => `\n${indent}${yamlText(name)}:${one !== null && typeof one === "object" ? "" : " "}${yamlText(one, `${indent}  `)}`).join("");
}

/** Rules as text, without keys that have no value. */
function rulesText(streams: ConfigView["config"]["streams"]): string {
  const isSet = (value: unknown): boolean => value !== null && !(typeof value === "object" && Object.keys(value).length === 0);
  const kept = (value: unknown): unknown => value === null || typeof value !== "object" || Array.isArray(value) ? value
    : Object.fromEntries(Object.entries(value).map(([name, one]) => [name, kept(one)] as const).filter(([, one]) => isSet(one)));
  return yamlText(Object.fromEntries(Object.entries(streams).map(([name, one]) => [name, kept(one.alerts)]))).trimStart();
}

function budgetText({ per_day: allowed, team }: Budget): string {
  if (allowed === null) return "no budget";
  return `${numberText(allowed, 3)} a day${team === null ? "" : `, shared by team ${team}`}`;
}

/** Messages and pages of each stream in the last 24 hours; streams of a team share their budget, so their pages count together. */
function BudgetSection(): JSX.Element {
  const view = useView<Page<Budget>>("budgets", {}, 60, ["alert", "deliveries"]);
  return <Section title="Messages of the last 24 hours, and the budget of pages"><Shown view={view}>{({ items }) => {
    const used = (one: Budget): number => (one.team === null ? one.pages : items.reduce((sum, other) => sum + (other.team === one.team ? other.pages : 0), 0));
    return <Table label="Budgets" columns={["Stream", "Alerts", "Messages", "Pages", "Budget", "Used"]} empty="The config has no stream."
      rows={items.map((one) => ({ key: one.stream, cells: [<Name text={one.stream} />, countText(one.alerts), countText(one.messages), countText(one.pages), budgetText(one),
        one.per_day === null ? "–" : <span class={used(one) > one.per_day ? "failed" : "done"}>{numberText((100 * used(one)) / one.per_day, 3)} %</span>] }))} />;
  }}</Shown></Section>;
}

export function AlertingPage(): JSX.Element {
  // What is open is there however many newer ones have closed.
  const open = useView<Page<Alert>>("alerts?state=waiting&state=open&limit=200", {}, 30, ["alert"]);
  const closed = useView<Page<Alert>>("alerts?state=closed&limit=100", {}, 30, ["alert"]);
  const silences = useView<Page<Silence>>("silences", { limit: 100 }, 15, ["alert"]);
  const endpoints = useView<Page<Endpoint>>("endpoints", {}, 15, ["deliveries"]);
  const deliveries = useView<Page<Delivery>>("deliveries", { limit: 100 }, 15, ["deliveries"]);
  const config = useView<ConfigView>("config", {}, 60);
  const groups = new Map([...(open.data?.items ?? []), ...(closed.data?.items ?? [])].map((one) => [one.id, one.group]));
  const end = async (id: string): Promise<string> => { await send("DELETE", `silences/${id}`); return "The silence has ended."; };
  const [force, setForce] = useState(false);
  const redeliver = async (one: Delivery): Promise<string> => {
    await send("POST", `deliveries/${one.id}/redeliver`, { force });
    deliveries.reload();
    return `The message is queued again for ${one.endpoint}. It keeps its id, so that a receiver can drop a repeat.`;
  };
  return <div class="page"><h1>Alerting</h1>
    <Section title="Alerts"><Shown view={open}>{(now) => <Shown view={closed}>{(past) => <Table label="Alerts" columns={["Severity", "Series or group", "Stream", "State", "Urgency", "Rule", "Anomalies", "Since"]} empty="No alert is stored."
      rows={[...now.items, ...past.items].map((one) => ({ key: one.id, cells: [<SeverityMark severity={one.severity} />, <Link to={`/alerts/${one.id}`}><Name text={one.group || "all series"} /></Link>, <Name text={one.stream} />,
        `${one.state}${one.acknowledged_by ? `, acknowledged by ${one.acknowledged_by}` : ""}${one.suppressed_by ? `, held by ${one.suppressed_by}` : ""}`, one.urgency, <Name text={one.rule} />, countText(one.count), <When at={one.opened} />] }))} />}</Shown>}</Shown><More page={open.data} what="open alerts" command="forewatch alerts list" /><More page={closed.data} what="closed alerts" command="forewatch alerts list" /></Section>
    <div class="columns">
      <Section title="Silences"><Shown view={silences}>{({ items }) => <Table label="Silences" columns={["Covers", "Until", "By", ""]} empty="Nothing is silenced. On the page of an incident, “Silence this series” adds one."
        rows={items.map((one) => ({ key: one.id, cells: [<Name text={coverText(one)} />, <When at={one.ends} />, <Name text={one.author} />,
          <ConfirmButton label="End" title="End this silence?" run={() => end(one.id)} onDone={silences.reload} aria-label={`End the silence of ${one.author}`}><p>Alerts that it holds back and that are still open are sent now.</p></ConfirmButton>] }))} />}</Shown><More page={silences.data} what="silences" command="forewatch silences list" /></Section>
      <Section title="Endpoints"><Shown view={endpoints}>{({ items }) => <Table label="Endpoints" columns={["Name", "Type", "Health", "Waiting", "Last delivery"]} empty="The config has no endpoint: anomalies are stored, but nobody is notified."
        rows={items.map((one) => ({ key: one.name, cells: [<Name text={one.name} />, one.type, one.disabled !== null ? <span class="failed">disabled: {one.reason}</span> : one.failing !== null ? <span class="failed">fails since <When at={one.failing} /></span> : one.delivered === null ? <span class="muted">no delivery yet</span> : <span class="done">works</span>,
          countText(one.pending), ageText(msOf(one.delivered))] }))} />}</Shown></Section>
    </div>
    <BudgetSection />
    <SilenceCalendar />
    <Shown view={config}>{({ config: { streams } }) => <PreviewSection streams={Object.keys(streams)} />}</Shown>
    <Section title="Deliveries"><Shown view={deliveries}>{({ items }) => <Table label="Deliveries" columns={["Created", "To", "Message", "State", "Attempts", "Alert", ""]} empty="No delivery is stored."
      rows={items.map((one) => ({ key: one.id, cells: [<When at={one.created} />, <Name text={one.endpoint} />, one.kind, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, countText(one.attempts), <Link to={`/alerts/${one.alert_id}`}><Name text={groups.get(one.alert_id) || one.alert_id.slice(0, 8)} /></Link>,
        <span class="pair"><PayloadButton delivery={one} /><ConfirmButton label="Redeliver" disabled={one.state === "pending"} title="Send this message again?" class={one.state === "delivered" ? "quiet" : ""} run={() => redeliver(one)} aria-label={`Redeliver to ${one.endpoint}`} onOpen={() => setForce(false)}>
          <p>{one.kind} to <Name text={one.endpoint} />, {one.state}{one.reason ? `: ${one.reason}` : ""}.</p>
          <label><input type="checkbox" checked={force} onChange={(event) => setForce(event.currentTarget.checked)} /> Also if its alert has delivered a newer message</label></ConfirmButton></span>] }))} />}</Shown><More page={deliveries.data} what="deliveries" command="forewatch deliveries list" /></Section>
    <Section title="Rules in force"><Shown view={config}>{({ config: { streams } }) => <pre tabIndex={0} aria-label="Rules">{rulesText(streams)}</pre>}</Shown></Section>
  </div>;
}
