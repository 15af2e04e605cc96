/** Texts of times, numbers and durations, in the language and time zone of the reader. */

const clock = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
});

/** Milliseconds of a time of the API. */
export function msOf(iso: string | null | undefined): number | null {
  return iso ? Date.parse(iso) : null;
}

const clockThisYear = new Intl.DateTimeFormat(undefined, { month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 4 });

/** Labels of an axis of values: short, so that they fit beside it. */
export function valueLabels(_: unknown, values: number[]): string[] {
  return values.map((one) => compact.format(one));
}

export const zone: string = Intl.DateTimeFormat().resolvedOptions().timeZone;

const utcClock = new Intl.DateTimeFormat(undefined, { month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZone: "UTC" });
const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const clockOnly = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const dayOnly = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const offset = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" });

/** Difference of the zone of the reader from UTC at a time: `UTC+2`; `UTC` where there is none. */
export function offsetText(ms: number): string {
  const text = offset.formatToParts(new Date(ms)).find((one) => one.type === "timeZoneName")?.value ?? "GMT";
  return text.replace("GMT", "UTC").replace(/[+-]0$/, "");
}

/** Local time with its zone, and the same in UTC where that differs. */
export function bothTimes(ms: number): string {
  const zoned = offsetText(ms);
  return zoned === "UTC" ? `${timeText(ms)} UTC` : `${timeText(ms)} ${zoned} (${utcClock.format(new Date(ms))} UTC)`;
}

/** Labels of an axis of time: the clock, with the day where it changes. */
export function axisLabels(_: unknown, times: number[]): string[] {
  let day = "";
  const clocks = times.length > 1 && times[1]! - times[0]! < 60 ? seconds : clockOnly;
  return times.map((at) => {
    const date = new Date(at * 1000), today = dayOnly.format(date);
    const label = today === day ? clocks.format(date) : `${clocks.format(date)}\n${today}`;
    day = today;
    return label;
  });
}

export function timeText(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  const date = new Date(ms);
  return (date.getFullYear() === new Date().getFullYear() ? clockThisYear : clock).format(date);
}

export function ageText(ms: number | null | undefined, now: number = Date.now()): string {
  if (ms === null || ms === undefined) return "never";
  const age = now - ms;
  return age < 0 ? `in ${durationText(-age)}` : `${durationText(age)} ago`;
}

const UNITS: [string, number][] = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];

export function durationText(ms: number): string {
  for (let at = 0; at < UNITS.length; at++) {
    const [name, size] = UNITS[at]!;
    if (ms >= size) {
      const whole = Math.floor(ms / size);
      const next = UNITS[at + 1];
      const rest = next ? Math.floor((ms - whole * size) / next[1]) : 0;
      return rest && next && whole < 10 ? `${whole} ${name} ${rest} ${next[0]}` : `${whole} ${name}`;
    }
  }
  return `${Math.max(0, Math.round(ms))} ms`;
}

/** A formatter takes longer to make than to use. */
const formats: Record<number, Intl.NumberFormat> = {};
const whole = new Intl.NumberFormat();

export function numberText(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(digits - 2);
  return (formats[digits] ??= new Intl.NumberFormat(undefined, { maximumSignificantDigits: digits })).format(value);
}

export function countText(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : whole.format(value);
}

/** A number with its noun: `1 message`, `2 messages`. */
export function countOf(count: number, one: string, many = `${one}s`): string {
  return `${countText(count)} ${count === 1 ? one : many}`;
}

export function bytesText(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return "–";
  let size = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000 || unit === "GB") return `${numberText(size, 3)} ${unit}`;
    size /= 1000;
  }
  return "";
}
