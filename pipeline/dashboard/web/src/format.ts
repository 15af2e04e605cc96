/** Texts of times, numbers and durations, in the language and time zone of the reader. */

const clock = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
});

/** Milliseconds of a time of the API. */
export function msOf(iso: string | null | undefined): number | null {
  return iso ? Date.parse(iso) : null;
}

export const zone: string = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function timeText(ms: number | null | undefined): string {
  return ms === null || ms === undefined ? "–" : clock.format(new Date(ms));
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

export function bytesText(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return "–";
  let size = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000 || unit === "GB") return `${numberText(size, 3)} ${unit}`;
    size /= 1000;
  }
  return "";
}
