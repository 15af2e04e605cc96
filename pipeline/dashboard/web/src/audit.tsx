/** Audit: who changed what, when and from where. */
import type { JSX } from "preact";
import { useView, type Page } from "./api";
import { More, Name, Section, Shown, Table, When } from "./parts";

interface Entry { id: number; at: string; actor: string; kind: string; address: string | null; action: string; object: string; stream: string | null; detail: Record<string, unknown> }

function detailText(detail: Record<string, unknown>): string {
  return Object.entries(detail).filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : String(value)}`).join(", ");
}

export function AuditPage(): JSX.Element {
  const entries = useView<Page<Entry>>("audit", { limit: 200 });
  return <div class="page"><h1>Audit</h1>
    <Section title="Changes, the newest first"><Shown view={entries}>{({ items }) => <Table label="Changes" empty="Nothing was changed yet."
      columns={["Time", "Author", "By", "From", "Action", "Object", "Stream", "Detail"]}
      rows={items.map((one) => ({ key: String(one.id), cells: [<When at={one.at} />, <Name text={one.actor} />, one.kind, one.address ?? "", one.action,
        <Name text={one.object} />, one.stream === null ? "" : <Name text={one.stream} />, <Name text={detailText(one.detail)} long />] }))} />}</Shown></Section>
    <More page={entries.data} what="changes" command="forewatch audit" />
  </div>;
}
