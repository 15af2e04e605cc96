/** Rows of the fleet: streams, the health of their data, groups and series, the worst first. */
import { ageText, countOf, countText, durationText, timeText } from "./format";
import type { Lane, Span } from "./lanes";
import { SEVERITIES } from "./parts";

interface StreamView {
  name: string; labels: string[]; latest_ms: number | null; behind_ms: number | null; partitions: number; records: number; buffered: number;
  late: number; dead_lettered: number; updated_ms: number | null;
  faults: { kind: string; message: string; start_ms: number; end_ms: number | null }[];
  lanes: { series: string[]; labels: Record<string, string>[]; of: number[]; severity: number[]; start_ms: number[]; end_ms: number[]; open: number[] };
}
interface Gap { from_ms: number; to_ms: number }
/** Gaps of each stream: times in which none of its series has a record. */
export type Gaps = Record<string, Gap[]>;
export type Names = Record<string, { names: string[]; count: number }>;
export interface Fleet {
  now_ms: number; span_ms: number; streams: StreamView[]; left_out: number;
  tiles: { records_per_second: number | null; open_anomalies: number; open_alerts: number; messages_today: number; pages_today: number; budget: number | null;
    deliveries_waiting: number; open_faults: number; dead_letters: number; daemon_ms: number | null };
}

export interface Row extends Lane { stream: string; series: string | null; worst: number; count: number; newest: number; text: string; fault?: string; labels?: Record<string, string> | undefined; to?: string }

const NO_SPANS: Span[] = [];

function matches(filter: string, stream: string, series: string, labels: Record<string, string> | undefined): boolean {
  if (!filter) return true;
  return filter.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const equals = word.indexOf("=");
    if (equals > 0) {
      const name = word.slice(0, equals), wanted = word.slice(equals + 1);
      const value = name === "stream" ? stream : name === "series" ? series : Object.entries(labels ?? {}).find(([key]) => key.toLowerCase() === name)?.[1] ?? "";
      return value.toLowerCase().includes(wanted);
    }
    return stream.toLowerCase().includes(word) || series.toLowerCase().includes(word);
  });
}

/** Labels of a series by its name: `site=b2,sensor=t1`, or only the value if there is one label. */
function labelsOf(fields: string[], name: string): Record<string, string> {
  return fields.length === 1 ? { [fields[0]!]: name } : Object.fromEntries(pairsOf(name));
}

/** Pairs of label and value in the name of a series with several labels. */
function pairsOf(name: string): [string, string][] {
  return [...name.matchAll(/((?:\\.|[^\\,=])*)=((?:\\.|[^\\,=])*),?/g)].map((part) => [part[1]!, part[2]!.replaceAll(/\\(.)/g, "$1")]);
}

/** The name of a series in a narrow window: the values of its labels, if it has several. */
export function shortName(name: string): string {
  const pairs = pairsOf(name);
  return pairs.length > 1 ? pairs.map(([, value]) => value).join(", ") : name;
}

/** Rows of one stream: first the series with open and severe anomalies, then those without any. */
function seriesRows(stream: StreamView, names: string[], filter: string, now: number, span: number, withLabels: boolean): Row[] {
  const until = stream.latest_ms ?? now, from = until - span;
  const { series, labels, of, severity, start_ms, end_ms, open } = stream.lanes;
  const found: Row[] = series.map((name, at) => ({ kind: "series", labels: labels[at], key: `${stream.name}\u0000${name}`, from, until, spans: [], stream: stream.name, series: name, worst: -1, count: 0, text: "", newest: 0 }));
  for (let at = 0; at < of.length; at++) {
    const row = found[of[at]!]!, isOpen = open[at] === 1;
    row.spans.push({ from: start_ms[at]!, to: isOpen ? until : end_ms[at]!, severity: severity[at]!, open: isOpen, stream: stream.name, series: row.series });
    row.worst = Math.max(row.worst, severity[at]! + (isOpen ? 10 : 0));
    row.newest = Math.max(row.newest, start_ms[at]!);
    row.count++;
  }
  for (const row of found) row.text = worstText(row);
  const kept = found.filter((row, at) => matches(filter, stream.name, row.series!, labels[at]));
  kept.sort((one, other) => other.worst - one.worst || other.newest - one.newest || (one.series! < other.series! ? -1 : 1));
  const known = new Set(series);
  for (const name of names) {
    const of_name = withLabels || filter.includes("=") ? labelsOf(stream.labels, name) : undefined;
    if (known.has(name) || !matches(filter, stream.name, name, of_name)) continue;
    kept.push({ kind: "series", labels: of_name, key: `${stream.name}\u0000${name}`, from, until, spans: NO_SPANS, stream: stream.name, series: name, worst: -1, count: 0, text: "no anomaly", newest: 0 });
  }
  return kept;
}

/** Spans of rows; the worst ones are drawn last, over the others. */
function spansOf(rows: Row[]): Span[] {
  return rows.flatMap((row) => row.spans).sort((one, other) => one.severity - other.severity);
}

/** Series of a stream with one label are groups already. */
function isGrouped(stream: StreamView, label: string): boolean {
  return stream.labels.length > 1 && stream.labels.includes(label);
}

function worstText(row: Row): string {
  return `${countOf(row.count, "anomaly", "anomalies")}, worst ${SEVERITIES[row.worst % 10]!}${row.worst >= 10 ? ", open" : ""}`;
}

/** The rows with one before each group of series that have the same label, the worst group first. */
function groupedRows(rows: Row[], label: string): Row[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const value = row.labels?.[label] ?? "", group = groups.get(value);
    if (group) group.push(row); else groups.set(value, [row]);
  }
  // The rows are sorted, and so are the groups by their first ones.
  return [...groups].flatMap(([value, members]) => {
    const query = new URLSearchParams(location.search), first = members[0]!;
    query.set("filter", `${label}=${value}`);
    const row: Row = { ...first, kind: "group", key: `${first.stream}\u0001${value}`, series: value, spans: spansOf(members), count: members.reduce((sum, one) => sum + one.count, 0), to: `/?${query.toString()}`, text: "" };
    row.text = `${countText(members.length)} series${row.worst >= 0 ? `, ${worstText(row)}` : ""}`;
    return [row, ...members];
  });
}

/** Gaps of a stream as spans of its lane, and in words. */
function gapsOf(stream: StreamView, gaps: Gap[], from: number): { spans: Span[]; text: string } {
  const shown = gaps.filter((one) => one.to_ms >= from);
  const longest = Math.max(...shown.map((one) => one.to_ms - one.from_ms));
  return {
    spans: shown.map((one) => ({ from: one.from_ms, to: one.to_ms, severity: 0, open: false, stream: stream.name, series: null, gap: true, label: `no record for ${durationText(one.to_ms - one.from_ms)}, from ${timeText(one.from_ms)}` })),
    text: shown.length === 0 ? "" : shown.length === 1 ? `no record for ${durationText(longest)}` : `${countText(shown.length)} gaps without a record, the longest ${durationText(longest)}`,
  };
}

/** One row per stream, one for its faults and gaps, one per group and one per series. */
export function rowsOf(fleet: Fleet, names: Names, gaps: Gaps, filter: string, label: string): Row[] {
  const groups: { worst: number; rows: Row[] }[] = [];
  for (const stream of fleet.streams) {
    const until = stream.latest_ms ?? fleet.now_ms, from = until - fleet.span_ms;
    const known = names[stream.name];
    const grouped = isGrouped(stream, label);
    const rows = seriesRows(stream, known?.names ?? [], filter, fleet.now_ms, fleet.span_ms, grouped);
    if (filter && !rows.length) continue;
    const all = spansOf(rows);
    const worst = rows[0]?.worst ?? -1;
    const faults = stream.faults.map((one) => ({ from: one.start_ms, to: one.end_ms ?? fleet.now_ms, severity: 3, open: one.end_ms === null, stream: stream.name, series: null, label: `${one.kind.replaceAll("_", " ")}: ${one.message}` }));
    // A fault has times of the wall clock; on a stream of old data only those that last are shown, at its end.
    const current = Math.abs(fleet.now_ms - until) < fleet.span_ms;
    const shown = current ? faults.map((one) => ({ ...one, from: one.from - (fleet.now_ms - until), to: one.to - (fleet.now_ms - until) }))
      : faults.filter((one) => one.open).map((one) => ({ ...one, from: until - fleet.span_ms / 60, to: until }));
    const lag = stream.latest_ms === null ? "no record yet" : Math.abs(fleet.now_ms - stream.latest_ms) < 3_600_000 ? `until ${ageText(stream.latest_ms, fleet.now_ms)}` : `until ${timeText(stream.latest_ms)}`;
    const open = stream.faults.filter((one) => one.end_ms === null), missing = gapsOf(stream, gaps[stream.name] ?? [], from);
    const unlisted = known && !filter ? known.count - known.names.length : 0;
    groups.push({ worst: worst + (open.length ? 5 : 0), rows: [
      { kind: "stream", key: stream.name, from, until, spans: all, stream: stream.name, series: null, worst, count: all.length, newest: 0,
        text: `${known || filter ? countText(rows.length + unlisted) : "…"} series, ${lag}` },
      { kind: "health", key: `${stream.name} health`, from, until, spans: [...missing.spans, ...shown], stream: stream.name, series: null, worst: -1, count: faults.length, newest: 0,
        ...(open[0] ? { fault: `${open[0].kind.replaceAll("_", " ")}: ${open[0].message}` } : {}),
        text: [missing.text, stream.buffered ? `${countText(stream.buffered)} buffered` : "", stream.late ? `${countText(stream.late)} late` : "",
          stream.dead_lettered ? countOf(stream.dead_lettered, "dead letter") : ""].filter(Boolean).join(", ") || "no late record, no dead letter" },
      ...(grouped ? groupedRows(rows, label) : rows)] });
  }
  return groups.sort((one, other) => other.worst - one.worst).flatMap((group) => group.rows);
}
