/** Events of one series: which came, how surprising each was, and what was expected instead. */
import type { JSX } from "preact";
import { numberText, timeText } from "./format";
import { Section, Table } from "./parts";

export interface EventRow { time_ms: number; code: string; end: boolean; surprise: number | null; flag: boolean }
export interface EventView { code: string; probability: number | null; before: string[]; likely: { code: string; probability: number }[] }

/** Rows of the table below the timeline. */
const LISTED = 100;
/** Probability from which a further event counts as expected. */
const LEAST_LIKELY = 0.01;

function percent(probability: number): string {
  return probability > 0.99 ? ">99 %" : probability < 0.01 ? "<1 %" : `${Math.round(probability * 100)} %`;
}

/** One bar for each event, as high as it was surprising; the line is the limit of alarms. */
export function EventTimeline({ events, limit }: { events: EventRow[]; limit: number }): JSX.Element {
  const flagged = events.filter((one) => one.flag).length;
  const most = Math.max(2 * limit, ...events.map((one) => one.surprise ?? 0));
  return <figure class="timeline">
    <div class="bars" role="img" aria-label={`${events.length} events, ${flagged} of them unexpected`}>
      {events.map((one, n) => <span key={n} class={one.flag ? "flagged" : one.end ? "end" : ""} title={`${timeText(one.time_ms)} ${one.code}`}
        style={{ height: `${Math.max(2, (100 * (one.surprise ?? 0)) / most)}%` }} />)}
      <i style={{ bottom: `${(100 * limit) / most}%` }} />
    </div>
    <figcaption class="muted">{timeText(events[0]?.time_ms)} to {timeText(events.at(-1)?.time_ms)}: one bar for each event in its order, as high as −log₁₀ of its calibrated probability. From the line on, an event is an alarm.</figcaption>
  </figure>;
}

export function EventTable({ events }: { events: EventRow[] }): JSX.Element {
  return <Table label="Events" columns={["Time", "Event", "Surprise (−log₁₀ p)", ""]} empty="None."
    rows={events.slice(-LISTED).reverse().map((one, n) => ({ key: `${one.time_ms}-${n}`, cells: [timeText(one.time_ms), one.end ? <span class="muted">{one.code}</span> : <bdi>{one.code}</bdi>,
      numberText(one.surprise, 3), one.flag ? <span class="badge bad">unexpected</span> : ""] }))} />;
}

/** The events before an anomaly, the one that came, and those that were expected in its place. */
export function EventStory({ event, cause }: { event: EventView; cause: string }): JSX.Element {
  const came = cause === "missing_event" ? "nothing came" : event.code;
  const likely = event.likely.filter((one, n) => one.code !== event.code && (n === 0 || one.probability >= LEAST_LIKELY));
  return <div class="story">
    <ol class="before" aria-label="Events before, and the unexpected one">
      {event.before.map((code, n) => <li key={n}><bdi>{code}</bdi></li>)}
      <li class="came"><b><bdi>{came}</bdi></b>{event.probability !== null && <span class="muted"> p = {numberText(event.probability, 3)}</span>}</li>
    </ol>
    {likely.length > 0 && <div><b>Expected instead</b>{likely.map((one) => <div class="share" key={one.code}>
      <bdi>{one.code}</bdi><meter min={0} max={1} value={one.probability} aria-label={`probability of ${one.code}`} /><span>{percent(one.probability)}</span></div>)}</div>}
  </div>;
}

export function EventSections({ events, limit }: { events: EventRow[]; limit: number }): JSX.Element {
  return <>
    <Section title={`The newest ${events.length} events`}><EventTimeline events={events} limit={limit} /></Section>
    <Section title={`The newest ${Math.min(LISTED, events.length)} events, newest first`}><EventTable events={events} /></Section>
  </>;
}
