/** Models: who forecasts, versions with their evidence, jobs, and what would be detected today. */
import type { JSX } from "preact";
import { useView, type Page } from "./api";
import { Empty, Fields, Link, Name, Section, Shown, Table, When } from "./parts";

interface Champion { stream: string; detector: string; preset: string; decision: string; version: string | null; pinned: boolean }
interface Model { version: string; state: string; parent: string | null; author: string; reason: string; made: string; evidence: Record<string, { text?: string } | unknown> }
interface Promotion { action: string; to_version: string | null; author: string; reason: string; created: string }
interface Job { id: number; kind: string; state: string; trigger: string; reason: string; error: string | null; progress: Record<string, unknown>; created: string; finished: string | null }

/** The sentences of the cards of evidence of a version. */
function evidenceText(evidence: Model["evidence"]): string {
  return Object.values(evidence).map((card) => (card as { text?: unknown } | null)?.text).filter((text) => typeof text === "string").join(" ");
}

function OfStream({ champion }: { champion: Champion }): JSX.Element {
  const { stream } = champion;
  const power = useView<Page<Record<string, string | number | null>>>("detection-power", { stream });
  const versions = useView<Page<Model>>("models", { stream, limit: 30 });
  const changes = useView<Page<Promotion>>("promotions", { stream, limit: 30 });
  const jobs = useView<Page<Job>>("jobs", { stream, limit: 30 });
  return <>
    <Section title="Champion"><Fields fields={[["Stream", <Name text={stream} />], ["Model", champion.version ?? "packaged with forewatch"], ["Pinned", champion.pinned ? "yes" : "no"], ["Detector", champion.detector], ["Preset", champion.preset], ["Decision", champion.decision.replaceAll("_", " ")]]} /></Section>
    <Section title="The smallest change that is detected today"><Shown view={power}>{({ items }) => <Table label="Detection power" columns={items[0] ? Object.keys(items[0]).map((one) => one.replaceAll("_", " ")) : []} empty="Not measured yet: a running daemon measures one series after another."
      rows={items.map((one, n) => ({ key: String(n), cells: Object.values(one).map((value) => (typeof value === "number" ? String(Math.round(value * 1000) / 1000) : String(value ?? "–"))) }))} />}</Shown></Section>
    <Section title="Versions"><Shown view={versions}>{({ items }) => <Table label="Versions" columns={["Version", "State", "From", "By", "Why", "Evidence", "Made"]} empty="No trained version: the packaged model forecasts."
      rows={items.map((one) => ({ key: one.version, cells: [<code>{one.version}</code>, one.state, one.parent ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <bdi>{evidenceText(one.evidence)}</bdi>, <When at={one.made} />] }))} />}</Shown></Section>
    <div class="columns">
      <Section title="Promotions and rollbacks"><Shown view={changes}>{({ items }) => <Table label="Changes" columns={["What", "To", "By", "Why", "At"]} empty="None yet." rows={items.map((one, n) => ({ key: String(n), cells: [one.action, one.to_version ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <When at={one.created} />] }))} />}</Shown></Section>
      <Section title="Jobs"><Shown view={jobs}>{({ items }) => <Table label="Jobs" columns={["Id", "Kind", "State", "Trigger", "Progress", "Created"]} empty="No job. `forewatch train` starts one."
        rows={items.map((one) => ({ key: String(one.id), cells: [String(one.id), one.kind, `${one.state}${one.reason || one.error ? `: ${one.reason || one.error || ""}` : ""}`, one.trigger,
          Object.entries(one.progress).filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name} ${String(value)}`).join(", "), <When at={one.created} />] }))} />}</Shown></Section>
    </div>
    <p class="muted"><code>forewatch models promote</code>, <code>roll-back</code> and <code>pin</code> change the champion.</p>
  </>;
}

export function ModelsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const view = useView<Page<Champion>>("champions");
  const wanted = query.get("stream");
  return <div class="page"><h1>Models</h1><Shown view={view}>{({ items }) => {
    const champion = items.find((one) => one.stream === wanted) ?? items[0];
    if (!champion) return <Empty title="The config has no stream" />;
    return <>
      <div class="bar">{items.map((one) => <Link key={one.stream} to={`/models?stream=${encodeURIComponent(one.stream)}`} aria-current={one === champion ? "page" : undefined}><Name text={one.stream} /></Link>)}</div>
      <OfStream key={champion.stream} champion={champion} />
    </>;
  }}</Shown></div>;
}
