/** Chart of one channel around an anomaly. */
import type { JSX } from "preact";
import { useView } from "./api";
import type { Anomaly } from "./incident";
import { go, seriesAddress } from "./route";
import { EventTimeline } from "./sequence";
import { Chart, type SeriesData } from "./chart";

export function AroundChart({ anomaly, channel }: { anomaly: Anomaly; channel: string }): JSX.Element | null {
  const open = anomaly.state === "open";
  const view = useView<SeriesData>("chart", { stream: anomaly.stream, series: anomaly.series, anomaly: anomaly.id, width: 800 }, open ? 15 : 300, open ? ["anomaly"] : []);
  const data = view.data;
  if (!data) return view.error ? <p class="muted">No chart: {view.error.detail}</p> : <p class="muted" role="status">Loading the chart …</p>;
  if (!data.rows) return <p class="muted">No chart: the recorded history has no points of this time.</p>;
  if (data.events) return <EventTimeline events={data.events} limit={data.alarm_surprise ?? 0} />;
  const led = anomaly.channels.find((one) => one.channel === channel);
  return <Chart data={data} channel={channel} other={null} by={0} height={220} usual={anomaly.of_value && led ? [led.lower, led.upper] : undefined}
    onRange={(first, last) => go(seriesAddress(anomaly.stream, anomaly.series, { from: new Date(first).toISOString(), to: new Date(last).toISOString() }))} />;
}
