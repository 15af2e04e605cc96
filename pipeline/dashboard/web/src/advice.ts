/** How unusual and how long an anomaly was, in words. */
import { countText, durationText, numberText } from "./format";
import type { Anomaly } from "./incident";

/** How unusual the peak is, in words. */
export function rarityText(anomaly: Anomaly): string {
  if (anomaly.ratio) return `${numberText(anomaly.ratio, 3)} times as far from the middle as the usual range reaches`;
  if (anomaly.surprise === null) return "not measured";
  const unit = anomaly.event ? "session or event" : "point";
  if (anomaly.surprise > 12) return `rarer than one ${unit} in a trillion`;
  const points = 10 ** anomaly.surprise;
  return `about one ${unit} in ${points < 1e6 ? countText(Number(points.toPrecision(2))) : points < 1e9 ? `${numberText(points / 1e6, 2)} million` : `${numberText(points / 1e9, 2)} billion`} is as unusual`;
}

/** How long an anomaly lasted. The decision by surprise flags an event once, however long it lasts. */
export function durationOf(anomaly: Anomaly): string {
  const lasted = Date.parse(anomaly.end) - Date.parse(anomaly.start);
  if (lasted > 0) return durationText(lasted);
  if (anomaly.readings > 1) return `${countText(anomaly.readings)} readings`;
  return anomaly.event ? "one event" : anomaly.ratio === null ? "flagged once" : "alarm at one reading";
}
