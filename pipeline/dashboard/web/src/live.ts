/** Server-sent events: one connection per page, opened again after a failure with the last event it had. */
import { useLayoutEffect, useState } from "preact/hooks";

export type Connection = "connecting" | "live" | "lost";
/** What an event is about; `reset` and a new connection concern everything. */
export type Topic = "anomaly" | "alert" | "fault" | "deliveries" | "progress";
const TOPICS: Topic[] = ["anomaly", "alert", "fault", "deliveries", "progress"];

type Listener = (topics: Set<Topic>) => void;
const changes = new Set<Listener>();
const states = new Set<(state: Connection) => void>();
let state: Connection = "connecting";
let source: EventSource | null = null;
let delay = 1000;
let due = 0;
let announced = -1000;
let lastId = "";
const pending = new Set<Topic>();
/** A server that starts may refuse events for so long. */
const START_MS = 30_000;

/**
 * A lost connection, the first one and one that is back concern all views: they ask at once, and show what they learn. An event
 * between the first answer of a view and the first connection would otherwise be seen by the next timer only.
 */
function setState(next: Connection): void {
  if (next === state) return;
  state = next;
  states.forEach((listener) => listener(next));
  announce(TOPICS);
}

/** Tell the pages at once, but at most four times a second. */
function announce(topics: Topic[]): void {
  topics.forEach((one) => pending.add(one));
  if (due) return;
  due = window.setTimeout(() => {
    due = 0;
    announced = performance.now();
    const now = new Set(pending);
    pending.clear();
    changes.forEach((listener) => listener(now));
  }, Math.max(20, announced + 250 - performance.now()));
}

function connect(): void {
  source?.close();
  const opened = source = new EventSource(`/api/v1/events${lastId ? `?after=${encodeURIComponent(lastId)}` : ""}`);
  const on = (kind: string, act: () => void): void => opened.addEventListener(kind, (event) => { lastId = (event as MessageEvent).lastEventId; act(); });
  on("ready", () => { delay = 1000; setState("live"); });
  for (const topic of TOPICS) on(topic, () => announce([topic]));
  on("reset", () => announce(TOPICS));
  on("renew", connect); // a planned end: the next connection goes on after the last event
  opened.onerror = () => {
    if (state !== "connecting" || performance.now() > START_MS) setState("lost");
    if (opened.readyState !== EventSource.CLOSED) return; // the browser connects again by itself, with the last id
    window.setTimeout(connect, delay);
    delay = Math.min(delay * 2, performance.now() > START_MS ? 10_000 : 1000);
  };
}

export function startEvents(): void {
  connect();
  window.addEventListener("online", connect);
}

export function onChange(listener: Listener): () => void {
  changes.add(listener);
  return () => changes.delete(listener);
}

export function useConnection(): Connection {
  const [now, setNow] = useState(state);
  useLayoutEffect(() => {
    states.add(setNow);
    setNow(state); // it may have changed since the first drawing
    return () => { states.delete(setNow); };
  }, []);
  return now;
}
