/** System: partitions and owners, faults, dead letters, and the config in force. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { send, useView, type Page } from "./api";
import { ConfirmButton, errorText } from "./confirm";
import { ageText, bytesText, countOf, countText, durationText, msOf, numberText } from "./format";
import { Fields, More, Name, plain, Section, Sentence, Shown, Table, When } from "./parts";

interface Partition { stream: string; topic: string; partition: number; owner: string; committed: string | null; epoch: number; next_offset: number | null; scored: number; buffered: number; late: number;
  duplicate: number; dead_lettered: number; watermark: string | null; snapshot_bytes: number | null }
interface Fault { stream: string; kind: string; message: string; started: string; ended: string | null }
interface DeadLetter { id: number; stream: string; reason: string; detail: string; offset: number; value: string | null; created: string; replayed: string | null }
interface ConfigView { file: string | null; database: string; database_schema: string | null; yaml: string }

interface Daemon { problem: string | null; memory_bytes: number | null; started: string | null; streams: { stream: string; commits: number; mean_ms: number | null; p99_ms: number | null; lag_records: number | null }[] }

const SHOWN_BYTES = 400;

function msText(ms: number | null): string {
  return ms === null ? "–" : `${numberText(ms, 3)} ms`;
}

function DaemonSection(): JSX.Element {
  const view = useView<Daemon>("daemon", {}, 5);
  return <Section title="Daemon"><Shown view={view}>{(found) => found.problem !== null ? <p class="muted"><Sentence text={found.problem} /></p> : <>
    <Fields fields={[["Memory", bytesText(found.memory_bytes)], ["Started", <When at={found.started} />]]} />
    <Table label="Commits" columns={["Stream", "Records behind the log", "Commits", "Commit takes on average", "99 of 100 take at most"]} empty="No commit yet."
      rows={found.streams.map((one) => ({ key: one.stream, cells: [<Name text={one.stream} />, countText(one.lag_records), countText(one.commits), msText(one.mean_ms), msText(one.p99_ms)] }))} /></>}</Shown></Section>;
}

/** Event time behind the clock; of old data it says nothing. */
function behindText(watermark: string | null): string {
  const behind = watermark === null ? Infinity : Date.now() - Date.parse(watermark);
  return behind < 86_400_000 ? durationText(Math.max(0, behind)) : "–";
}

/** The beginning of a record that the API gives in base64, as text. */
function recordText(value: string | null): string {
  if (value === null) return "";
  const bytes = Uint8Array.from(atob(value.slice(0, SHOWN_BYTES * 2)).slice(0, SHOWN_BYTES), (one) => one.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}

interface Replayed { considered: number; decodable: number; replayed: number; refused: Record<string, number> }

/** Button that first counts which dead letters of a stream decode now. */
function Replay({ stream, reload }: { stream: string; reload: () => void }): JSX.Element {
  const [counted, setCounted] = useState<string>("Counting …");
  const count = (): void => {
    setCounted("Counting …");
    send<Replayed>("POST", "dead-letters/replay", { stream, dry_run: true }).then((found) => {
      const refused = Object.entries(found.refused).map(([reason, number]) => `${reason.replaceAll("_", " ")}: ${countText(number)}`).join(", ");
      setCounted(`${countText(found.decodable)} of ${countText(found.considered)} ${found.decodable === 1 ? "decodes" : "decode"} with the present config.${refused ? ` The others still do not (${refused}).` : ""}`);
    }, (error: unknown) => setCounted(errorText(error)));
  };
  const run = async (): Promise<string> => {
    const found = await send<Replayed>("POST", "dead-letters/replay", { stream, dry_run: false });
    return found.replayed === 0 ? "No record decodes, so none was written." : `${countOf(found.replayed, "record was", "records were")} written again, and will be read as new.`;
  };
  return <ConfirmButton label={`Replay ${plain(stream)}`} title={`Replay the dead letters of ${plain(stream)}?`} run={run} onOpen={count} onDone={reload}><p role="status">{counted}</p>
    <p>Those that decode are written again to where they came from, the topic of Kafka or the spool of pushed data, and are read and scored as new ones. The others stay here.</p></ConfirmButton>;
}

export function SystemPage(): JSX.Element {
  const partitions = useView<Page<Partition>>("partitions", {}, 15, ["progress"]);
  const faults = useView<Page<Fault>>("faults", { limit: 100 }, 15, ["fault"]);
  const letters = useView<Page<DeadLetter>>("dead-letters", { limit: 100 });
  const counts = useView<Record<string, number>>("dead-letters/counts");
  const config = useView<ConfigView>("config", {}, 60);
  return <div class="page"><h1>System</h1>
    <Section title="Partitions and their owners"><Shown view={partitions}>{({ items }) => <Table label="Partitions" empty="No daemon has acquired a partition yet."
      columns={["Stream", "Partition", "Owner", "Last commit", "Event time", "Behind now", "Next offset", "Scored", "Buffered", "Late", "Duplicates", "Dead letters", "Snapshot"]}
      rows={items.map((one) => ({ key: `${one.stream} ${one.topic} ${one.partition}`, cells: [<Name text={one.stream} />, <Name text={`${one.topic}-${one.partition}`} />, <Name text={one.owner} />, ageText(msOf(one.committed)),
        <When at={one.watermark} />, behindText(one.watermark), countText(one.next_offset), countText(one.scored), countText(one.buffered), countText(one.late), countText(one.duplicate), countText(one.dead_lettered), bytesText(one.snapshot_bytes)] }))} />}</Shown></Section>
    <DaemonSection />
    <Section title="Faults of the pipeline"><Shown view={faults}>{({ items }) => <Table label="Faults" columns={["State", "Kind", "Stream", "What is wrong, and what to do", "Since", "Until"]} empty="No fault is stored."
      rows={items.map((one, n) => ({ key: String(n), cells: [one.ended === null ? <span class="failed">⚠ open</span> : "ended", one.kind.replaceAll("_", " "), <Name text={one.stream} />, <bdi>{one.message}</bdi>, <When at={one.started} />, <When at={one.ended} />] }))} />}</Shown><More page={faults.data} what="faults" command="forewatch faults list" /></Section>
    <Section title="Dead letters" aside={counts.data && <span class="muted">{Object.entries(counts.data).map(([reason, count]) => `${reason.replaceAll("_", " ")}: ${countText(count)}`).join(", ")}</span>}>
      <Shown view={letters}>{({ items }) => <><Table label="Dead letters" columns={["Id", "Stream", "Reason", "Detail", "Record", "Arrived", "Replayed"]} empty="Every record could be decoded."
        rows={items.map((one) => ({ key: String(one.id), cells: [String(one.id), <Name text={one.stream} />, one.reason.replaceAll("_", " "), <bdi>{one.detail}</bdi>, <Name text={recordText(one.value)} />, <When at={one.created} />, <When at={one.replayed} />] }))} />
      <More page={letters.data} what="dead letters" command="forewatch deadletters list" />
      <div class="actions">{[...new Set(items.filter((one) => one.replayed === null).map((one) => one.stream))].sort().map((one) => <Replay key={one} stream={one} reload={() => { letters.reload(); counts.reload(); }} />)}</div></>}</Shown></Section>
    <Section title="Config in force"><Shown view={config}>{(found) => <><Fields fields={[["File", found.file ?? "none"], ["Database", found.database], ["Schema", found.database_schema ?? "none"]]} /><pre tabIndex={0} aria-label="Config">{found.yaml}</pre></>}</Shown></Section>
  </div>;
}
