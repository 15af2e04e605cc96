/** System: partitions and owners, faults, dead letters, and the config in force. */
import type { JSX } from "preact";
import { useView } from "./api";
import { ageText, bytesText, countText } from "./format";
import { Fields, Name, Section, Shown, Table, When } from "./parts";

interface System {
  now_ms: number; database: string; schema: string | null; config: string; dead_letter_counts: Record<string, number>;
  partitions: { stream: string; partition: string; owner: string; updated_ms: number; epoch: number; next_offset: number | null; scored: number; buffered: number; late: number; duplicate: number;
    dead_lettered: number; watermark_ms: number | null; snapshot_bytes: number | null }[];
  faults: { stream: string; kind: string; message: string; start_ms: number; end_ms: number | null }[];
  dead_letters: { id: number; stream: string; reason: string; detail: string; offset: number; value: string; created_ms: number; replayed_ms: number | null }[];
}

export function SystemPage(): JSX.Element {
  const view = useView<System>("system");
  return <div class="page"><h1>System</h1><Shown view={view}>{(data) => <>
    <Section title="Partitions and their owners"><Table label="Partitions" empty="No daemon has acquired a partition yet."
      columns={["Stream", "Partition", "Owner", "Last commit", "Event time", "Next offset", "Scored", "Buffered", "Late", "Duplicates", "Dead letters", "Snapshot"]}
      rows={data.partitions.map((one) => ({ key: `${one.stream} ${one.partition}`, cells: [<Name text={one.stream} />, <Name text={one.partition} />, <Name text={one.owner} />, ageText(one.updated_ms, data.now_ms),
        <When ms={one.watermark_ms} />, countText(one.next_offset), countText(one.scored), countText(one.buffered), countText(one.late), countText(one.duplicate), countText(one.dead_lettered), bytesText(one.snapshot_bytes)] }))} /></Section>
    <Section title="Faults of the pipeline"><Table label="Faults" columns={["State", "Kind", "Stream", "What is wrong, and what to do", "Since", "Until"]} empty="No fault is stored."
      rows={data.faults.map((one, n) => ({ key: String(n), cells: [one.end_ms === null ? <span class="failed">⚠ open</span> : "ended", one.kind.replaceAll("_", " "), <Name text={one.stream} />, <bdi>{one.message}</bdi>, <When ms={one.start_ms} />, <When ms={one.end_ms} />] }))} /></Section>
    <Section title="Dead letters" aside={<span class="muted">{Object.entries(data.dead_letter_counts).map(([reason, count]) => `${reason}: ${countText(count)}`).join(", ")}</span>}>
      <Table label="Dead letters" columns={["Id", "Stream", "Reason", "Detail", "Record", "Arrived", "Replayed"]} empty="Every record could be decoded."
        rows={data.dead_letters.map((one) => ({ key: String(one.id), cells: [String(one.id), <Name text={one.stream} />, one.reason, <bdi>{one.detail}</bdi>, <Name text={one.value} />, <When ms={one.created_ms} />, <When ms={one.replayed_ms} />] }))} />
      {data.dead_letters.length > 0 && <p class="muted"><code>forewatch deadletters replay</code> writes those that decode now to their topic again.</p>}</Section>
    <Section title="Config in force"><Fields fields={[["Database", data.database], ["Schema", data.schema ?? "none"]]} /><pre tabIndex={0} aria-label="Config">{data.config}</pre></Section>
  </>}</Shown></div>;
}
