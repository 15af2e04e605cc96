/** Server-sent events: one connection per page, opened again after a failure. */
import { useEffect, useState } from "preact/hooks";

export type Connection = "connecting" | "live" | "lost";

const changes = new Set<() => void>();
const states = new Set<(state: Connection) => void>();
let state: Connection = "connecting";
let source: EventSource | null = null;
let delay = 1000;
let due = 0;

function setState(next: Connection): void {
  if (next === state) return;
  state = next;
  states.forEach((listener) => listener(next));
}

/** Tell the pages at most four times a second. */
function announce(): void {
  if (due) return;
  due = window.setTimeout(() => { due = 0; changes.forEach((listener) => listener()); }, 250);
}

function connect(): void {
  source?.close();
  source = new EventSource("/api/v1/events");
  source.addEventListener("ready", () => {
    delay = 1000;
    const was = state;
    setState("live");
    if (was === "lost") announce();
  });
  source.addEventListener("change", announce);
  source.onerror = () => {
    source?.close();
    setState("lost");
    window.setTimeout(connect, delay);
    delay = Math.min(delay * 2, 10_000);
  };
}

export function startEvents(): void {
  connect();
  window.addEventListener("online", connect);
}

export function onChange(listener: () => void): () => void {
  changes.add(listener);
  return () => changes.delete(listener);
}

export function useConnection(): Connection {
  const [now, setNow] = useState(state);
  useEffect(() => { states.add(setNow); return () => { states.delete(setNow); }; }, []);
  return now;
}
