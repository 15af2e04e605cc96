/** Drawing of lanes on a canvas that is as high as the window, not as the list. */

export const ROW = 24;

export interface Span { from: number; to: number; severity: number; open: boolean; stream: string; series: string | null; label?: string; gap?: boolean }
export interface Lane { kind: "stream" | "health" | "group" | "series"; key: string; from: number; until: number; spans: Span[] }

export interface Colours { line: string; fill: string[]; fault: string; stripe: string; gap: string }

export function coloursOf(element: HTMLElement): Colours {
  const style = getComputedStyle(element);
  const of = (name: string): string => style.getPropertyValue(name).trim();
  return { line: of("--line"), stripe: of("--stripe"), fault: of("--fault"), gap: of("--muted"), fill: [of("--info"), of("--warning"), of("--major"), of("--critical")] };
}

/** Position of a time on a lane, in pixels. */
export function place(lane: Lane, time: number, width: number): number {
  return ((time - lane.from) / (lane.until - lane.from)) * width;
}

/**
 * Draw the lanes that are visible at `top`. Severity is shown by colour and by height, so that it can be told
 * without colours; faults are dashed, gaps in the data are thin lines.
 */
export function drawLanes(canvas: HTMLCanvasElement, lanes: Lane[], top: number, width: number, height: number, colours: Colours): void {
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d")!;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const first = Math.max(0, Math.floor(top / ROW)), last = Math.min(lanes.length, Math.ceil((top + height) / ROW));
  pen.fillStyle = colours.stripe;
  for (let at = first; at < last; at++) {
    if (lanes[at]!.kind === "stream" || lanes[at]!.kind === "group") pen.fillRect(0, at * ROW - top, width, ROW);
  }
  pen.strokeStyle = colours.line;
  pen.lineWidth = 1;
  pen.beginPath();
  for (let part = 1; part < 6; part++) {
    const x = Math.round((width * part) / 6) + 0.5;
    pen.moveTo(x, 0);
    pen.lineTo(x, height);
  }
  for (let at = first; at < last; at++) {
    const y = Math.round((at + 1) * ROW - top) - 0.5;
    pen.moveTo(0, y);
    pen.lineTo(width, y);
  }
  pen.stroke();
  for (let at = first; at < last; at++) {
    const lane = lanes[at]!;
    const y = at * ROW - top;
    for (const span of lane.spans) {
      const left = Math.max(0, place(lane, span.from, width));
      const right = Math.min(width, place(lane, span.to, width));
      if (right < 0 || left > width) continue;
      const size = span.gap ? 4 : lane.kind === "health" ? 8 : [8, 12, 16, 20][span.severity]!;
      pen.fillStyle = span.gap ? colours.gap : lane.kind === "health" ? colours.fault : colours.fill[span.severity]!;
      const long = Math.max(4, right - left);
      const x = Math.min(left, width - long);
      if (lane.kind === "health" && !span.gap) {
        for (let dash = 0; dash < long; dash += 6) pen.fillRect(x + dash, y + (ROW - size) / 2, Math.min(4, long - dash), size);
      } else {
        pen.fillRect(x, y + (ROW - size) / 2, long, size);
        if (span.open) pen.fillRect(width - 3, y + 2, 3, ROW - 4);
      }
    }
  }
}
