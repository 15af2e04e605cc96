/** Evidence card of a version, drawn: forecast error, calibration and detected changes beside those of the champion. */
import type { JSX } from "preact";
import { countText, numberText, timeText } from "./format";
import { Name } from "./parts";

interface Backtest { version: string; points: number; mase: number | null; covered: number | null; tails: Record<string, number>; alarms: number; power: Record<string, number>; microseconds: number }
export interface Card { challenger: Backtest; champion: Backtest; naive_mase: number | null; since_ns: number; until_ns: number; series: number; promote: boolean; reason: string; against: string[]; in_favour: string[] }

const KINDS: Record<string, string> = { backtest: "On points that its training did not see", shadow: "Beside the champion, on newer points" };
const CHANGES: Record<string, string> = { spike: "spikes", dip: "dips", shift: "shifts", drift: "drifts", flat: "flat stretches" };

export function isCard(card: unknown): card is Card {
  return typeof card === "object" && card !== null && "challenger" in card && "champion" in card && "naive_mase" in card;
}

interface Bar { name: string; value: number | null; kind: "new" | "old" | "naive"; text: string }

/** Bars of equal scale; `wanted` is a line across them. */
function Bars({ title, note, bars, wanted }: { title: string; note: string; bars: Bar[]; wanted?: { value: number; text: string } }): JSX.Element {
  const most = Math.max(1e-12, wanted?.value ?? 0, ...bars.map((one) => one.value ?? 0)) * 1.05;
  return <figure class="evidence" role="img" aria-label={`${title}: ${bars.map((one) => `${one.name} ${one.text}`).join(", ")}${wanted ? `; wanted ${wanted.text}` : ""}`}>
    <figcaption><b>{title}</b> <span class="muted">{note}</span></figcaption>
    <div aria-hidden="true">{bars.map((one) => <div class="evidence-row" key={one.name}><span>{one.name}</span>
      <span class="evidence-bar"><i class={one.kind} style={{ width: `${(100 * (one.value ?? 0)) / most}%` }} />{wanted && <u style={{ left: `${(100 * wanted.value) / most}%` }} />}</span><span>{one.text}</span></div>)}
      {wanted && <div class="evidence-row muted"><span /><span>┆ wanted: {wanted.text}</span><span /></div>}</div>
  </figure>;
}

function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : `${numberText(value * 100, 3)} %`;
}

function pair(card: Card, of: (one: Backtest) => number | null, text: (value: number | null) => string): Bar[] {
  return [{ name: "this version", value: of(card.challenger), kind: "new", text: text(of(card.challenger)) }, { name: "champion then", value: of(card.champion), kind: "old", text: text(of(card.champion)) }];
}

export function EvidenceCard({ kind, card }: { kind: string; card: Card }): JSX.Element {
  const share = (one: Backtest): number | null => one.tails["2"] ?? null;
  const kinds = Object.keys(card.challenger.power).filter((one) => one in card.champion.power);
  const mean = (one: Backtest): number => kinds.reduce((sum, name) => sum + one.power[name]!, 0) / kinds.length;
  return <section class="evidence-card"><h3>{KINDS[kind] ?? kind}: {card.promote ? <span class="done">better</span> : <span class="failed">not better</span>}</h3>
    <p class="muted">{countText(card.challenger.points)} points of {countText(card.series)} series, {timeText(card.since_ns / 1e6)} to {timeText(card.until_ns / 1e6)}</p>
    <div class="evidence-charts">
      <Bars title="Forecast error" note="shorter is better" bars={[...pair(card, (one) => one.mase, (value) => numberText(value, 3)),
        { name: "a season ago", value: card.naive_mase, kind: "naive", text: numberText(card.naive_mase, 3) }]} />
      <Bars title="Points as rare as 1 in 100" note="closest to the line is best" bars={pair(card, share, percent)} wanted={{ value: 0.01, text: "1 %" }} />
      <Bars title="Points inside the interval" note="longer is better" bars={pair(card, (one) => one.covered, percent)} />
      {kinds.length > 0 && <Bars title="Added changes that are found" note={`longer is better; ${kinds.map((one) => CHANGES[one] ?? one).join(", ")}`} bars={pair(card, mean, percent)} />}
      <Bars title="Alarms" note="fewer is better, if none that matters is missed" bars={pair(card, (one) => one.alarms, countText)} />
      <Bars title="Time for a point" note="shorter is better" bars={pair(card, (one) => one.microseconds, (value) => `${numberText(value, 3)} µs`)} />
    </div>
    <ul class="reasons">{card.in_favour.map((one) => <li key={one}><span class="done">+</span> <Name long text={one} /></li>)}{card.against.map((one) => <li key={one}><span class="failed">−</span> <Name long text={one} /></li>)}
      {!card.in_favour.length && !card.against.length && <li class="muted">Nothing is better than with the champion.</li>}</ul>
  </section>;
}
