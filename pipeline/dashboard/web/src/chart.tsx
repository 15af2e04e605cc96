/** Chart of one channel: observed values with their expected band, and marks of what happened. */
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { axisLabels, countText, timeText, valueLabels } from "./format";
import type { Labelled } from "./incident";
import { colour, drawMarks, useThemeChange } from "./marks";
import { Name } from "./parts";
import type { EventRow } from "./sequence";

type Numbers = (number | null)[];
interface Points { min: Numbers; max: Numbers; expected: Numbers; lower: Numbers; upper: Numbers }
interface Stretch { from_ms: number; to_ms: number }
export interface Run extends Stretch { name: string }
export interface SeriesData extends Stretch {
  stream: string; series: string; rows: number; channels: string[]; units: Record<string, string>; time_ms: number[]; reduced: boolean;
  points: Record<string, Points>; models: Run[]; forecasters: Run[]; missing: Stretch[];
  events: EventRow[] | null; alarm_surprise?: number; anomalies: Labelled[]; late_ms: number[]; retracted: (Stretch & { id: string; revised: string | null })[]; excluded: (Stretch & { why: string })[];
}

interface Props {
  data: SeriesData; channel: string; other: SeriesData | null; by: number; onRange: (from: number, to: number) => void; height?: number;
  /** Usual range of the cause of an anomaly, in units of the value. */
  usual?: [number | null, number | null] | undefined;
}

/** Values of another stretch at the times of this one. */
function shifted(times: number[], other: SeriesData | null, channel: string, by: number): Numbers {
  const points = other?.points[channel];
  if (!other || !points) return times.map(() => null);
  const known = other.time_ms, usual = known.length > 1 ? (known[known.length - 1]! - known[0]!) / (known.length - 1) : 0;
  const farthest = Math.max(2 * usual, 1000);
  let at = 0;
  return times.map((time) => {
    while (at + 1 < known.length && known[at + 1]! <= time - by) at++;
    return known.length && Math.abs(known[at]! - (time - by)) <= farthest ? points.max[at]! : null;
  });
}

function columnsOf({ data, channel, other, by, usual }: Props): uPlot.AlignedData {
  const points = data.points[channel]!, ends = (usual ?? []).filter((end) => end !== null);
  return [data.time_ms.map((ms) => ms / 1000), points.upper, points.lower, points.expected, points.max, ...(data.reduced ? [points.min] : []),
    ...(other ? [shifted(data.time_ms, other, channel, by)] : []), ...ends.map((end) => data.time_ms.map(() => end))];
}

/** The lines of a chart, in the order of `columnsOf`. */
function linesOf({ data, channel, other, usual }: Props, few: boolean): uPlot.Series[] {
  const unit = data.units[channel], plain = { points: { show: false } }, hidden = { stroke: "transparent", ...plain };
  const ends = ["usual from", "usual to"].filter((_, at) => (usual?.[at] ?? null) !== null);
  return [
    {},
    { label: "upper", ...hidden },
    { label: "lower", ...hidden },
    { label: "expected", stroke: colour("--expected"), width: 1, dash: [4, 3], ...plain },
    { label: data.reduced ? "highest" : `observed${unit ? ` (${unit})` : ""}`, stroke: colour("--observed"), width: 1.5, points: { show: few, size: 4 } },
    ...(data.reduced ? [{ label: "lowest", stroke: colour("--observed"), width: 1.5, ...plain }] : []),
    ...(other ? [{ label: "before", stroke: colour("--muted"), width: 1, ...plain }] : []),
    ...ends.map((label) => ({ label, stroke: colour("--good"), width: 1.5, dash: [8, 4], ...plain })),
  ];
}

function optionsOf(given: Props, few: boolean, width: number, shown: { current: SeriesData }): uPlot.Options {
  const { data, channel, usual, onRange, height } = given;
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  return {
    width, height: height ?? (data.channels.length > 2 ? 190 : 270),
    cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "series" } },
    scales: { x: { min: data.from_ms / 1000, max: data.to_ms / 1000 } },
    axes: [{ ...axis, values: axisLabels, space: 80 }, { ...axis, values: valueLabels, size: 62 }],
    series: linesOf(given, few),
    bands: [{ series: [1, 2], fill: colour("--interval") }, ...(data.reduced ? [{ series: [4, 5] as [number, number], fill: colour("--band") }] : [])],
    hooks: {
      drawAxes: [(self) => drawMarks(self, shown.current, usual ? "" : channel)],
      setSelect: [(self) => { if (self.select.width > 6) onRange(self.posToVal(self.select.left, "x") * 1000, self.posToVal(self.select.left + self.select.width, "x") * 1000); }],
    },
  };
}

export function Chart(given: Props): JSX.Element {
  const { data, channel, other, by, usual } = given;
  const box = useRef<HTMLDivElement>(null);
  const plotted = useRef<uPlot | null>(null), shown = useRef(data);
  const theme = useThemeChange();
  shown.current = data;
  const columns = useMemo(() => columnsOf(given), [data, other, channel, by, usual?.[0], usual?.[1]]);
  // A chart with the same lines takes new points; it is built anew only for other ones.
  const few = !data.reduced && data.time_ms.length < 200;
  const structure = [channel, theme, data.reduced, few, other !== null, usual?.[0], usual?.[1]];
  useEffect(() => {
    const plot = plotted.current;
    if (!plot || plot.data === columns) return;
    plot.batch(() => {
      plot.setData(columns);
      plot.setScale("x", { min: data.from_ms / 1000, max: data.to_ms / 1000 });
    });
  }, [columns]);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined; // the page was left before this ran
    const plot = plotted.current = new uPlot(optionsOf(given, few, element.clientWidth, shown), columns, element);
    const watcher = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: plot.height }));
    watcher.observe(element);
    return () => { watcher.disconnect(); plot.destroy(); plotted.current = null; };
  }, structure);
  return <div class="plot"><h3><Name text={channel} />{data.units[channel] && <span class="muted"> in <bdi>{data.units[channel]}</bdi></span>}{usual && <span class="muted"> – – usual range of the cause</span>}</h3><div ref={box} role="img" aria-label={`${channel}: ${countText(data.rows)} points from ${timeText(data.from_ms)} to ${timeText(data.to_ms)}, ${data.anomalies.length} anomalies`} /></div>;
}
