/** Sentences for a person who must decide at once: how sure a verdict is, and what to do first. */
import { countText, numberText } from "./format";
import type { Anomaly } from "./incident";

const FIRST_STEP: Record<string, string> = {
  static_limit: "The limit is one that you configured: treat it as its owner would. If the limit is wrong, change `limits` of the stream.",
  flatline: "A value that repeats often means a sensor, an agent or a connection that hangs: check that the source still measures.",
  multivariate: "Each value alone may look normal: compare the channels in the chart, and look for the one that no longer follows the others.",
  relation: "Each value alone may look normal: compare the channel with the others of the series in the chart.",
  level_shift: "The mean has moved and may stay there: look for a change of load, configuration or calibration at its beginning.",
  unusual_level: "The mean has moved and may stay there: look for a change of load, configuration or calibration at its beginning.",
  step: "One sudden step: look for what happened at that moment, such as a restart, a deployment, a lost unit, or a wrong quote.",
  unusual_step: "One sudden step: look for what happened at that moment, such as a restart, a deployment, a lost unit, or a wrong quote.",
  volatility: "The value changes more from reading to reading than usual: look for a ramp, oscillation, retries or a loose contact.",
  unusual_noise: "The value changes more from reading to reading than usual: look for a ramp, oscillation, retries or a loose contact.",
  unexpected_event: "The order was wrong: look at what produced this event, and at the step that should have come before it.",
  missing_event: "The session stopped before its usual end: check whether the process, the batch or the person behind it is stuck.",
  new_event: "A kind of event that the model never saw: after a change or a release it is expected, otherwise find out what writes it.",
  unusual_sequence: "No single step is wrong, but the order drifts: compare the last events with those of an ordinary run, and look for what changed slowly.",
  absence: "Something that happens regularly did not happen: check the job, the batch or the people behind it.",
  seasonal_profile: "Usual at another time of day: check for a shifted schedule, a holiday or a change of clocks.",
};

export function firstStep(anomaly: Anomaly): string {
  return FIRST_STEP[anomaly.cause] ?? "Look at the chart: does the value come back by itself? Then look at what else broke at the same time.";
}

/** How unusual the peak is, in words. */
export function rarityText(anomaly: Anomaly): string {
  if (anomaly.ratio) return `${numberText(anomaly.ratio, 3)} times as far from the middle as the usual range reaches`;
  if (anomaly.surprise === null) return "not measured";
  const unit = anomaly.event ? "session or event" : "point";
  if (anomaly.surprise > 12) return `rarer than one ${unit} in a trillion`;
  const points = 10 ** anomaly.surprise;
  return `about one ${unit} in ${points < 1e6 ? countText(Number(points.toPrecision(2))) : points < 1e9 ? `${numberText(points / 1e6, 2)} million` : `${numberText(points / 1e9, 2)} billion`} is as unusual`;
}
