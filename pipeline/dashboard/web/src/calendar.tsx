/** Silences of two weeks, a row for each and a column for each day of the reader. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { useView } from "./api";
import { durationText, timeText } from "./format";
import { coverText } from "./incident";
import { Name, Section, Shown } from "./parts";

interface Window { stream: string | null; name: string; match: Record<string, unknown>; author: string; starts: string; ends: string }
interface Calendar { windows: Window[]; problems: string[] }
interface Row { key: string; label: string; title: string; windows: Window[] }

const DAYS = 14;
const SHOWN_ROWS = 40;
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });

function rowsOf(windows: Window[]): Row[] {
  const rows = new Map<string, Row>();
  for (const one of windows) {
    const label = [one.name, coverText(one)].filter(Boolean).join(": ");
    const key = one.name ? `${one.stream ?? ""}\u0000${one.name}` : `${label}\u0000${one.starts}`;
    const row = rows.get(key) ?? { key, label, title: `${label}, ${one.stream ?? "all streams"}, by ${one.author}`, windows: [] };
    row.windows.push(one);
    rows.set(key, row);
  }
  return [...rows.values()].sort((one, other) => Date.parse(one.windows[0]!.starts) - Date.parse(other.windows[0]!.starts));
}

/** Midnights of the reader, also where a day has 23 or 25 hours. */
function midnights(weeks: number): number[] {
  const first = new Date();
  return Array.from({ length: DAYS + 1 }, (_, n) => new Date(first.getFullYear(), first.getMonth(), first.getDate() + weeks * 7 + n).getTime());
}

export function SilenceCalendar(): JSX.Element {
  const [weeks, setWeeks] = useState(0);
  const days = useMemo(() => midnights(weeks), [weeks, new Date().getDate()]);
  const from = days[0]!, to = days[DAYS]!, now = Date.now();
  const view = useView<Calendar>("silence-calendar", { from: new Date(from).toISOString(), to: new Date(to).toISOString() }, 30, ["alert"]);
  const at = (ms: number): number => (100 * (Math.min(to, Math.max(from, ms)) - from)) / (to - from);
  const today = days.findIndex((one, n) => now >= one && now < (days[n + 1] ?? 0));
  return <Section title="Calendar of silences" aside={<div class="choices" role="group" aria-label="Weeks shown">
    <button type="button" onClick={() => setWeeks(weeks - 1)} aria-label="A week earlier">◀</button><button type="button" aria-pressed={weeks === 0} onClick={() => setWeeks(0)}>Two weeks from today</button><button type="button" onClick={() => setWeeks(weeks + 1)} aria-label="A week later">▶</button></div>}>
    <Shown view={view}>{({ windows, problems }) => {
      const rows = rowsOf(windows);
      return <>
        {problems.map((one) => <p class="failed" key={one}><bdi>{one}</bdi></p>)}
        {!rows.length ? <p class="muted">No silence in these two weeks. Recurring ones are planned in the config: <code>streams.NAME.alerts.silences</code>, with <code>cron</code> or an iCalendar file.</p>
          : <div class="scroll" role="region" aria-label="Calendar of silences" tabIndex={0}><div class="calendar">
            <div class="calendar-row head" aria-hidden="true"><span /><span class="calendar-days">{days.slice(0, DAYS).map((day, n) => <span key={day} class={n === today ? "today" : ""}>{weekday.format(day)} {new Date(day).getDate()}</span>)}</span></div>
            {rows.slice(0, SHOWN_ROWS).map((row) => <div class="calendar-row" key={row.key}><Name text={row.label} />
              <span class="calendar-days" role="img" aria-label={`${row.title}: ${row.windows.slice(0, 5).map((one) => `${timeText(Date.parse(one.starts))} to ${timeText(Date.parse(one.ends))}`).join("; ")}`}>
                {days.slice(1, DAYS).map((day) => <s key={day} style={{ left: `${at(day)}%` }} />)}
                {row.windows.map((one) => { const start = Date.parse(one.starts), end = Date.parse(one.ends);
                  return <i key={one.starts} class={start <= now && now < end ? "now" : end <= now ? "over" : ""} style={{ left: `${at(start)}%`, width: `max(3px, ${at(end) - at(start)}%)` }} title={`${row.title}\n${timeText(start)} to ${timeText(end)} (${durationText(end - start)})`} />; })}
                {now >= from && now < to && <u style={{ left: `${at(now)}%` }} />}</span></div>)}
          </div></div>}
        {rows.length > SHOWN_ROWS && <p class="muted">and {rows.length - SHOWN_ROWS} more</p>}
      </>;
    }}</Shown></Section>;
}
