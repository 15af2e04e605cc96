/** Models: who forecasts, versions with their evidence, jobs, and what would be detected today. */
import type { JSX } from "preact";
import { useView } from "./api";
import { Fields, Link, Name, Section, Shown, Table, When } from "./parts";

interface Models {
  streams: string[]; stream: string; detector: string; preset: string; decision: string; champion: string | null; pinned: boolean;
  versions: { version: string; state: string; parent: string | null; author: string; reason: string; created_ms: number; evidence: Record<string, string> }[];
  changes: { action: string; to: string | null; author: string; reason: string; created_ms: number }[];
  jobs: { id: number; kind: string; state: string; trigger: string; reason: string; progress: Record<string, string | number>; created_ms: number; finished_ms: number | null }[];
  power: Record<string, string | number | null>[];
}

export function ModelsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const view = useView<Models>("models", { stream: query.get("stream") });
  return <div class="page"><h1>Models</h1><Shown view={view}>{(data) => <>
    <div class="bar">{data.streams.map((one) => <Link key={one} to={`/models?stream=${encodeURIComponent(one)}`} aria-current={one === data.stream ? "page" : undefined}><Name text={one} /></Link>)}</div>
    <Section title="Champion"><Fields fields={[["Stream", <Name text={data.stream} />], ["Model", data.champion ?? "packaged with forewatch"], ["Pinned", data.pinned ? "yes" : "no"], ["Detector", data.detector], ["Preset", data.preset], ["Decision", data.decision.replaceAll("_", " ")]]} /></Section>
    <Section title="The smallest change that is detected today"><Table label="Detection power" columns={data.power[0] ? Object.keys(data.power[0]).map((one) => one.replaceAll("_", " ")) : []} empty="Not measured yet: a running daemon measures one series after another."
      rows={data.power.map((one, n) => ({ key: String(n), cells: Object.values(one).map((value) => (typeof value === "number" ? String(Math.round(value * 1000) / 1000) : String(value ?? "–"))) }))} /></Section>
    <Section title="Versions"><Table label="Versions" columns={["Version", "State", "From", "By", "Why", "Evidence", "Made"]} empty="No trained version: the packaged model forecasts."
      rows={data.versions.map((one) => ({ key: one.version, cells: [<code>{one.version}</code>, one.state, one.parent ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <bdi>{Object.values(one.evidence).join(" ")}</bdi>, <When ms={one.created_ms} />] }))} /></Section>
    <div class="columns">
      <Section title="Promotions and rollbacks"><Table label="Changes" columns={["What", "To", "By", "Why", "At"]} empty="None yet." rows={data.changes.map((one, n) => ({ key: String(n), cells: [one.action, one.to ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <When ms={one.created_ms} />] }))} /></Section>
      <Section title="Jobs"><Table label="Jobs" columns={["Id", "Kind", "State", "Trigger", "Progress", "Created"]} empty="No job. `forewatch train` starts one."
        rows={data.jobs.map((one) => ({ key: String(one.id), cells: [String(one.id), one.kind, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, one.trigger, Object.entries(one.progress).map(([name, value]) => `${name} ${value}`).join(", "), <When ms={one.created_ms} />] }))} /></Section>
    </div>
    <p class="muted"><code>forewatch models promote</code>, <code>roll-back</code> and <code>pin</code> change the champion.</p>
  </>}</Shown></div>;
}
