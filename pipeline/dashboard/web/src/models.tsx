/** Models: who forecasts, versions with their evidence, jobs, and what would be detected today. */
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { send, useView, type Page } from "./api";
import { ConfirmButton } from "./confirm";
import { countText, durationText, numberText } from "./format";
import { EvidenceCard, isCard, type Card } from "./evidence";
import { AUTHOR } from "./incident";
import { CopyButton, Empty, Fields, Link, Name, Section, Shown, Table, When } from "./parts";
import { seriesAddress } from "./route";

interface Champion { stream: string; detector: string; preset: string; decision: string; version: string | null; pinned: boolean; trainable: boolean; backfill: "range" | "files" | "none" }
interface Model { version: string; state: string; parent: string | null; author: string; reason: string; made: string; evidence: Record<string, { text?: string } | unknown> }
interface Promotion { action: string; to_version: string | null; author: string; reason: string; created: string }
interface Job { id: number; kind: string; state: string; trigger: string; reason: string; error: string | null; progress: Record<string, unknown>; created: string; finished: string | null }

/** The sentences of the cards of evidence of a version. */
function evidenceText(evidence: Model["evidence"]): string {
  return Object.values(evidence).map((card) => (card as { text?: unknown } | null)?.text).filter((text) => typeof text === "string").join(" ");
}

const CHANGES: Record<string, string> = { spike: "spike: one point up", dip: "dip: one point down", shift: "shift: a new level", drift: "drift: a slow change", flat: "flat: the value stands still" };

function progressText(job: Job): string {
  if (job.finished) return "";
  const { phase, epoch, epochs, seconds_left: left } = job.progress as Record<string, string | number | undefined>;
  return [phase, epoch !== undefined && `epoch ${epoch}${epochs === undefined ? "" : ` of ${epochs}`}`, left !== undefined && `${durationText(Number(left) * 1000)} left`].filter(Boolean).join(", ");
}

/** Evidence of a version: its cards drawn in a dialog, or the sentence of an older or another card. */
function Evidence({ model }: { model: Model }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const cards = Object.entries(model.evidence).filter((one): one is [string, Card] => isCard(one[1]));
  const [newest] = cards.slice(-1);
  if (!newest) return <bdi>{evidenceText(model.evidence)}</bdi>;
  const { challenger, champion } = newest[1];
  const change = challenger.mase !== null && champion.mase ? challenger.mase / champion.mase - 1 : null;
  return <>
    <button type="button" onClick={() => dialog.current?.showModal()} aria-label={`Evidence of ${model.version}`}>{change === null ? "Show" : `Error ${change > 0 ? "+" : "−"}${numberText(Math.abs(change) * 100, 2)} %`}</button>
    <dialog ref={dialog} class="wide" aria-label={`Evidence of ${model.version}`} onClick={(event) => { if (event.target === dialog.current) dialog.current?.close(); }}><div>
      <h2>Evidence of <code>{model.version}</code></h2>
      {cards.map(([kind, card]) => <EvidenceCard key={kind} kind={kind} card={card} />)}
      <div class="actions"><button type="button" onClick={() => dialog.current?.close()}>Close</button></div>
    </div></dialog>
  </>;
}

function Promote({ model, stream, reload }: { model: Model; stream: string; reload: () => void }): JSX.Element {
  const [pinned, setPinned] = useState(true);
  const run = async (): Promise<string> => {
    await send("POST", `models/${model.version}/promote`, { author: AUTHOR, reason: "by hand, from the dashboard", pinned });
    return `${model.version} is the champion of ${stream}. A daemon uses it from its next batch on.`;
  };
  return <ConfirmButton label="Promote" title={`Promote ${model.version}?`} run={run} onDone={reload} aria-label={`Promote ${model.version}`}>
    <p>It forecasts for <Name text={stream} /> instead of the present champion. Its state is {model.state}: {evidenceText(model.evidence) || "there is no evidence card."}</p>
    <label><input type="checkbox" checked={pinned} onChange={(event) => setPinned(event.currentTarget.checked)} /> Pin it: no automatic promotion replaces it</label>
  </ConfirmButton>;
}

function ChampionActions({ champion, reload }: { champion: Champion; reload: () => void }): JSX.Element {
  const run = (path: string, done: string) => async (): Promise<string> => {
    await send("POST", `streams/${encodeURIComponent(champion.stream)}/${path}`, { author: AUTHOR, reason: "by hand, from the dashboard" });
    return done;
  };
  const pin = async (): Promise<string> => {
    await send("POST", `models/${champion.version!}/promote`, { author: AUTHOR, reason: "pinned by hand, from the dashboard", pinned: true });
    return `${champion.version!} stays the champion until it is unpinned.`;
  };
  return <div class="actions">
    {champion.version !== null && <ConfirmButton label="Roll back" title="Roll back to the previous champion?" run={run("rollback", "The previous champion forecasts again.")} onDone={reload}>
      <p>The model that forecast before this one forecasts again from the next batch on.</p></ConfirmButton>}
    {champion.version !== null && !champion.pinned && <ConfirmButton label="Pin" title="Keep this champion?" run={pin} onDone={reload}>
      <p>No automatic promotion or rollback replaces it until somebody unpins it.</p></ConfirmButton>}
    {champion.pinned && <ConfirmButton label="Unpin" title="Allow automatic promotions again?" run={run("unpin", "Better models are promoted automatically again.")} onDone={reload}>
      <p>A model that is better on the newest points replaces this one by itself.</p></ConfirmButton>}
  </div>;
}

function OfStream({ champion, reload: reloadChampions }: { champion: Champion; reload: () => void }): JSX.Element {
  const { stream } = champion;
  const power = useView<Page<Record<string, string | number | null>>>("detection-power", { stream });
  const versions = useView<Page<Model>>("models", { stream, limit: 30 });
  const changes = useView<Page<Promotion>>("promotions", { stream, limit: 30 });
  const jobs = useView<Page<Job>>("jobs", { stream, limit: 30 }, 5);
  const train = async (): Promise<string> => {
    const job = await send<Job>("POST", `streams/${encodeURIComponent(stream)}/train`, { author: AUTHOR, reason: "by hand, from the dashboard" });
    jobs.reload();
    return `Job ${job.id} is queued.`;
  };
  const reload = (): void => { reloadChampions(); versions.reload(); changes.reload(); };
  return <>
    <Section title="Champion" aside={<ChampionActions champion={champion} reload={reload} />}><Fields fields={[["Stream", <Name text={stream} />], ["Model", champion.version ?? "packaged with forewatch"], ["Pinned", champion.pinned ? "yes" : "no"], ["Detector", champion.detector], ["Preset", champion.preset], ["Decision", champion.decision.replaceAll("_", " ")]]} /></Section>
    <ForecasterSection stream={stream} />
    <Section title="The smallest change that is detected today"><Shown view={power}>{({ items }) => <><p class="muted">Changes are added to recorded points of some series, and the detector is run on them: so much must change to be found.</p><Table label="Detection power" columns={["Change", "Smallest size that is found", "Points until it is found", "Channels that miss it", "Channels measured"]} empty="Not measured yet: a running daemon measures one series after another."
      rows={items.map((one) => ({ key: String(one["kind"]), cells: [CHANGES[String(one["kind"])] ?? String(one["kind"]), one["smallest"] === null ? "–" : one["kind"] === "flat" ? "–" : `${numberText(Number(one["smallest"]), 3)} × the usual spread`, one["delay"] === null ? "–" : numberText(Number(one["delay"]), 3), `${numberText(Number(one["blind"] ?? 0) * 100, 2)} %`, countText(Number(one["series"]))] }))} /></>}</Shown></Section>
    <Section title="Versions"><Shown view={versions}>{({ items }) => <Table label="Versions" columns={["Version", "State", "From", "By", "Why", "Evidence", "Made", ""]} empty="No trained version: the packaged model forecasts."
      rows={items.map((one) => ({ key: one.version, cells: [<code>{one.version}</code>, one.state, one.parent ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <Evidence model={one} />, <When at={one.made} />,
        one.version === champion.version ? <span class="done">champion</span> : ["failed", "rejected"].includes(one.state) ? "" : <Promote model={one} stream={stream} reload={reload} />] }))} />}</Shown></Section>
    <div class="columns">
      <Section title="Promotions and rollbacks"><Shown view={changes}>{({ items }) => <Table label="Changes" columns={["What", "To", "By", "Why", "At"]} empty="None yet." rows={items.map((one, n) => ({ key: String(n), cells: [one.action, one.to_version ?? "packaged", <Name text={one.author} />, <bdi>{one.reason}</bdi>, <When at={one.created} />] }))} />}</Shown></Section>
      <Section title="Jobs" aside={champion.trainable && <ConfirmButton label="Train now" title={`Train a model of ${stream}?`} run={train}>
        <p>A training on the recorded history is queued; a running daemon runs it beside the streams. The new version is compared with the champion on the newest points, and promoted only if it is better.</p></ConfirmButton>}><Shown view={jobs}>{({ items }) => <Table label="Jobs" columns={["Id", "Kind", "State", "Trigger", "Progress", "Created"]} empty="No job yet. The command forewatch train starts one, and so does retraining.schedule."
        rows={items.map((one) => ({ key: String(one.id), cells: [String(one.id), one.kind, `${one.state}${one.reason || one.error ? `: ${one.reason || one.error || ""}` : ""}`, one.trigger,
          progressText(one), <When at={one.created} />] }))} />}</Shown></Section>
    </div>
    <DriftSection stream={stream} />
    <ScoreAgain champion={champion} />
  </>;
}

interface ForecasterUse { forecaster: string; series: number; examples: string[] }

/** Forecasters in words. */
const FORECASTERS: Record<string, string> = {
  none: "no forecast yet: the first point", static: "the mean of its first points", last_value: "its last value", seasonal: "the values one period ago",
  gaussian: "its running mean", lstm: "what an LSTM network learned from many series", network: "what the network of this stream learned", next_event: "what usually follows the events before",
};

/** Who forecasts: the active forecaster of each series, by its newest point. */
function ForecasterSection({ stream }: { stream: string }): JSX.Element {
  const view = useView<Page<ForecasterUse>>(`streams/${encodeURIComponent(stream)}/forecasters`, {}, 15);
  return <Section title="Who forecasts"><Shown view={view}>{({ items }) => {
    const all = items.reduce((sum, one) => sum + one.series, 0);
    return <><p class="muted">Of each series, the forecaster with the smallest recent error decides what is expected. The strip below the chart of a series shows when it changed, and <code>forewatch series show</code> the errors of all.</p>
      <Table label="Forecasters" columns={["Forecaster", "Expects", "Series", "Share", "For example"]} empty="No recorded point yet."
        rows={items.map((one) => ({ key: one.forecaster, cells: [one.forecaster.replaceAll("_", " "), FORECASTERS[one.forecaster] ?? "", countText(one.series), `${numberText((100 * one.series) / all, 3)} %`,
          <>{one.examples.map((name, n) => <>{n > 0 && ", "}<Link to={seriesAddress(stream, name)}><Name text={name} /></Link></>)}</>] }))} /></>;
  }}</Shown></Section>;
}

interface DriftSeries { series?: string; channel?: string; kind?: string; statistic?: number; since?: string | null; before?: number; after?: number }
interface Drift { watched: boolean; saved: string | null; quiet_until: string | null; drifts: { job: number; at: string | null; since: string | null; statistics: string[]; watched: number; series: DriftSeries[] }[] }

const CHANGED: Record<string, string> = { residual: "forecasts became worse", input: "values changed" };

function driftText(one: DriftSeries): string {
  return `${CHANGED[one.kind ?? ""] ?? one.kind ?? ""}: ${numberText(one.before, 3)} → ${numberText(one.after, 3)}`;
}

/** Lasting changes that the daemon found, and the trainings that they asked for. */
function DriftSection({ stream }: { stream: string }): JSX.Element {
  const view = useView<Drift>("drift", { stream }, 60);
  return <Section title="Drift"><Shown view={view}>{({ watched, saved, quiet_until: quiet, drifts }) => <>
    <p class="muted">{!watched ? "Not watched: retraining.on_drift is off, or the detector has no weights to train." : <>A lasting change of inputs or of forecast errors asks for a training. {saved === null ? "The daemon has not stored what it watches yet." : <>State of <When at={saved} />.</>}{quiet !== null && Date.parse(quiet) > Date.now() && <> No further drift is reported until <When at={quiet} />.</>}</>}</p>
    {(watched || drifts.length > 0) && <Table label="Drifts" columns={["Found", "Since", "Changed most", "Series watched", "Training"]} empty="No drift was found."
      rows={drifts.map((one) => ({ key: String(one.job), cells: [<When at={one.at} />, <When at={one.since} />,
        <ul class="plain">{one.series.slice(0, 3).map((some) => <li key={`${some.series}${some.channel}${some.kind}`}><Name text={some.series ?? ""} /> <bdi>{some.channel}</bdi>, {driftText(some)}</li>)}</ul>, countText(one.watched), `job ${one.job}`] }))} />}
  </>}</Shown></Section>;
}

/** A backfill reads the source again and is not started here: it needs the machine of the daemon and its files. */
function ScoreAgain({ champion: { stream, backfill } }: { champion: Champion }): JSX.Element {
  const file = useView<{ file: string | null }>("config", {}, 600).data?.file ?? "CONFIG";
  const [days, setDays] = useState("7");
  const quoted = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const input = { range: ` --from ${Number(days) >= 1 ? Math.round(Number(days)) : 1}d`, files: "", none: " --input FILE" }[backfill];
  const command = `forewatch backfill ${quoted(file)} --stream ${quoted(stream)}${input} --scores scores.parquet`;
  return <Section title="Score earlier points again" aside={<CopyButton text={command} />}>
    {backfill === "none" ? <p>The source of this stream keeps nothing that could be read again. Write its earlier points to a CSV or Parquet file, and name the file for FILE. <Link to={`/try?stream=${encodeURIComponent(stream)}`}>Try</Link> judges its newest recorded points with other settings.</p>
      : <p>This command reads {backfill === "files" ? "the files" : "the topics"} of the stream again and judges the points as the daemon would have, for example after a change of the config. Run it on the machine of the daemon; alerts are not sent for what is past.</p>}
    {backfill === "range" && <label class="slider"><span>From how many days ago</span><input type="number" min={1} max={3650} value={days} onInput={(event) => setDays(event.currentTarget.value)} /></label>}
    <pre tabIndex={0} aria-label="Command">{command}</pre></Section>;
}

export function ModelsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const view = useView<Page<Champion>>("champions");
  const wanted = query.get("stream");
  return <div class="page"><h1>Models</h1><Shown view={view}>{({ items }) => {
    const champion = items.find((one) => one.stream === wanted) ?? items[0];
    if (!champion) return <Empty title="The config has no stream" />;
    return <>
      <div class="bar tabs">{items.map((one) => <Link key={one.stream} to={`/models?stream=${encodeURIComponent(one.stream)}`} aria-current={one === champion ? "page" : undefined}><Name text={one.stream} /></Link>)}</div>
      <OfStream key={champion.stream} champion={champion} reload={view.reload} />
    </>;
  }}</Shown></div>;
}
