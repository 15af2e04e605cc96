/** Chart of one channel around an anomaly. */
import type { JSX } from "preact";
import { useView } from "./api";
import type { Anomaly } from "./incident";
import { go, seriesAddress } from "./route";
import { Chart, type SeriesData } from "./series";

/** Shortest time that is shown before an anomaly. */
const LEAST_MS = 60_000;

export function AroundChart({ anomaly, channel }: { anomaly: Anomaly; channel: string }): JSX.Element | null {
  const start = Date.parse(anomaly.start), open = anomaly.state === "open";
  const long = Math.max(Date.parse(anomaly.end) - start, LEAST_MS);
  const from = new Date(start - 8 * long).toISOString();
  const to = open ? null : new Date(Date.parse(anomaly.end) + 4 * long).toISOString();
  const view = useView<SeriesData>("chart", { stream: anomaly.stream, series: anomaly.series, from, to: to ?? new Date(Date.parse(anomaly.end) + 4 * long).toISOString(), width: 800 }, open ? 15 : 300, open ? ["anomaly"] : []);
  const data = view.data;
  if (!data) return view.error ? <p class="muted">No chart: {view.error.detail}</p> : <p class="muted" role="status">Loading the chart …</p>;
  if (!data.rows) return <p class="muted">No chart: the recorded history has no points of this time.</p>;
  return <Chart data={data} channel={channel} other={null} by={0} height={190}
    onRange={(first, last) => go(seriesAddress(anomaly.stream, anomaly.series, { from: new Date(first).toISOString(), to: new Date(last).toISOString() }))} />;
}
