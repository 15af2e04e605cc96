/** Marks behind the lines of a chart: anomalies with the limits of their cause, excluded stretches, gaps and late points. */
import { useEffect, useState } from "preact/hooks";
import type uPlot from "uplot";
import type { SeriesData } from "./chart";
import type { Channel, Labelled } from "./incident";

/** A colour of the theme by the name of its variable. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A number that changes with the theme, for what is drawn in its colours. */
export function useThemeChange(): number {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const redraw = (): void => setChanges((n) => n + 1);
    window.addEventListener("theme", redraw);
    return () => window.removeEventListener("theme", redraw);
  }, []);
  return changes;
}

/** The channel that led to an anomaly. */
function ledBy(one: Labelled): Channel {
  return one.channels.reduce((best, some) => ((some.contribution ?? 0) > (best.contribution ?? 0) ? some : best));
}

/** Draws into the plot area of a chart, in its units; what lies outside the visible range is left out. */
class Pen {
  constructor(private readonly plot: uPlot) {}

  private x(ms: number): number {
    const { left, width } = this.plot.bbox;
    return Math.min(left + width, Math.max(left, this.plot.valToPos(ms / 1000, "x", true)));
  }

  private isWithin(from: number, to: number): boolean {
    const { min, max } = this.plot.scales["x"]!;
    return to / 1000 >= (min ?? 0) && from / 1000 <= (max ?? 0);
  }

  /** A filled stretch over the whole height; `rows` pixels of it at the top or, if negative, at the bottom. */
  stretch(from: number, to: number, fill: string, rows?: number): void {
    if (!this.isWithin(from, to)) return;
    const { top, height } = this.plot.bbox, high = rows === undefined ? height : Math.abs(rows);
    this.plot.ctx.fillStyle = fill;
    this.plot.ctx.fillRect(this.x(from), rows !== undefined && rows < 0 ? top + height - high : top, Math.max(2, this.x(to) - this.x(from)), high);
  }

  frame(from: number, to: number, high: number): void {
    if (!this.isWithin(from, to)) return;
    const pen = this.plot.ctx;
    pen.strokeStyle = colour("--muted");
    pen.lineWidth = 1.5;
    pen.strokeRect(this.x(from), this.plot.bbox.top + 1, Math.max(6, this.x(to) - this.x(from)), high);
  }

  /** The limits that the cause of an anomaly has crossed, over the anomaly and a little beyond. */
  limits(from: number, to: number, ends: (number | null)[]): void {
    const pen = this.plot.ctx, { left, top, width, height } = this.plot.bbox;
    pen.strokeStyle = colour("--good");
    pen.lineWidth = 2;
    pen.setLineDash([6, 4]);
    for (const end of ends) {
      const y = end === null ? -1 : this.plot.valToPos(end, "y", true);
      if (y < top || y > top + height) continue;
      pen.beginPath();
      pen.moveTo(Math.max(left, this.x(from) - 24), y);
      pen.lineTo(Math.min(left + width, this.x(to) + 24), y);
      pen.stroke();
    }
    pen.setLineDash([]);
  }
}

function drawAnomaly(plot: uPlot, pen: Pen, one: Labelled, channel: string): void {
  const from = Date.parse(one.start), to = Date.parse(one.end), fill = colour(`--${one.severity}`), led = ledBy(one);
  if (one.review?.label === "false") { // retracted by a label: only a hollow mark
    pen.frame(from, to, 8);
    return;
  }
  plot.ctx.globalAlpha = 0.16;
  pen.stretch(from, to, fill);
  plot.ctx.globalAlpha = 1;
  pen.stretch(from, to, fill, 5);
  if (one.revised) { // found or changed by late points: a dashed frame
    plot.ctx.setLineDash([3, 3]);
    pen.frame(from, to, plot.bbox.height - 2);
    plot.ctx.setLineDash([]);
  }
  if (one.of_value && led.channel === channel) pen.limits(from, to, [led.lower, led.upper]);
}

export function drawMarks(plot: uPlot, data: SeriesData, channel: string): void {
  const pen = new Pen(plot);
  plot.ctx.save();
  data.excluded.forEach((one) => pen.stretch(one.from_ms, one.to_ms, colour("--quarantine")));
  data.missing.forEach((one) => pen.stretch(one.from_ms, one.to_ms, colour("--stripe")));
  data.anomalies.forEach((one) => drawAnomaly(plot, pen, one, channel));
  data.retracted.forEach((one) => pen.frame(one.from_ms, one.to_ms, 8));
  data.late_ms.forEach((one) => pen.stretch(one, one, colour("--fault"), -8));
  plot.ctx.restore();
}
