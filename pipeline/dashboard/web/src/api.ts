/** Requests to the server, and state that is kept fresh: by events, by a timer and after a failure. */
import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { onChange, type Topic } from "./live";

const API = "/api/v1/";
/** Least time between two requests of a view on a page that nobody sees. */
const HIDDEN_MS = 30_000;
/** Type of the answers of a server that is not ready. */
const STARTING = "urn:forewatch:starting";
/** Time between two requests after a failure, and during a start. */
const RETRY_MS = 2000, STARTING_MS = 300;
/** The same after an answer that a repeat will hardly change: there is no such object, or no right to see it. */
const REFUSED_MS = 15_000;

/** A failed request: `title` says what is wrong, `detail` what to do. */
export class RequestError extends Error {
  /** `starting`: the server answers, and loads the rest. */
  constructor(readonly status: number, readonly title: string, readonly detail: string, readonly starting = false) {
    super(`${title}: ${detail}`);
  }
}

export type Query = Record<string, string | number | boolean | null | undefined>;

function address(path: string, query: Query = {}): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
  return API + path + (text ? `?${text}` : "");
}

/** The token of the session against forged requests; empty where the server has no sessions. */
function token(): string {
  const found = document.cookie.split("; ").find((one) => /^(__Host-)?forewatch[-_]csrf=/.test(one));
  return found ? decodeURIComponent(found.slice(found.indexOf("=") + 1)) : "";
}

async function answer<T>(request: Promise<Response>): Promise<T> {
  let response: Response;
  try {
    response = await request;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new RequestError(0, "The server does not answer", "The page tries again by itself. On the machine, `forewatch serve CONFIG` starts it.");
  }
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new RequestError(401, "You are not signed in", "Sign in at /login, then the page continues.");
  }
  if (response.status === 204) return null as T;
  const body: unknown = response.headers.get("content-type")?.includes("json") ? await response.json().catch(() => null) : null;
  if (!response.ok || body === null) {
    const problem = (body ?? {}) as { type?: string; title?: string; detail?: unknown };
    throw new RequestError(
      response.status,
      problem.title ?? `The server answered ${response.status}`,
      typeof problem.detail === "string" ? problem.detail : "See the log of the server for the reason.",
      problem.type === STARTING,
    );
  }
  return body as T;
}

export function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  return answer<T>(fetch(address(path, query), { headers: { accept: "application/json" }, signal: signal ?? null }));
}

/** End the session of this browser. */
export async function logOut(): Promise<void> {
  await fetch("/logout", { method: "POST", headers: { "x-forewatch-csrf": token() } });
}

/** A change; `method` is POST, PUT or DELETE. */
export function send<T>(method: string, path: string, body: unknown = {}): Promise<T> {
  return answer<T>(fetch(address(path), {
    method,
    headers: { "content-type": "application/json", "x-forewatch-csrf": token() || "same-origin", "idempotency-key": crypto.randomUUID() },
    body: JSON.stringify(body),
  }));
}

export function upload<T>(path: string, query: Query, file: Blob, signal?: AbortSignal): Promise<T> {
  return answer<T>(fetch(address(path, query), {
    method: "POST",
    headers: { "content-type": "application/octet-stream", "x-forewatch-csrf": token() || "same-origin" },
    body: file,
    signal: signal ?? null,
  }));
}

/** Part of a list. */
export interface Page<T> { items: T[]; next_cursor: string | null }

export interface Loaded<T> {
  data: T | null;
  error: RequestError | null;
  loading: boolean;
  reload: () => void;
}

/**
 * The answer of a view. It is asked for again after an event of its topics, every `seconds`, and soon after a failure; the last
 * answer stays on the page meanwhile.
 */
export function useView<T>(path: string | null, query: Query = {}, seconds = 15, topics: Topic[] = []): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: RequestError | null; loading: boolean }>(
    { key: "", data: null, error: null, loading: true });
  const key = path === null ? "" : address(path, query);
  const again = useRef<() => void>(() => undefined);
  useLayoutEffect(() => {
    if (path === null) return undefined;
    let timer = 0, stopped = false, running = false, wanted = false;
    const control = new AbortController();
    const load = async (): Promise<void> => {
      if (running) { wanted = true; return; }
      running = true;
      window.clearTimeout(timer);
      const began = performance.now();
      let retry = 0;
      try {
        const data = await get<T>(path, query, control.signal);
        if (!stopped) setState({ key, data, error: null, loading: false });
      } catch (error) {
        retry = error instanceof RequestError ? (error.starting ? STARTING_MS : [403, 404, 422].includes(error.status) ? REFUSED_MS : RETRY_MS) : RETRY_MS;
        if (!stopped && error instanceof RequestError) {
          setState((old) => ({ key, data: old.key === key ? old.data : null, error, loading: false }));
        }
      }
      running = false;
      if (stopped) return;
      // A slow server, and a page that nobody sees, ask less often.
      const rest = Math.max(1000 * seconds, 3 * (performance.now() - began), document.hidden ? HIDDEN_MS : 0);
      timer = window.setTimeout(load, retry || (wanted ? 300 : rest));
      wanted = false;
    };
    again.current = () => void load();
    void load();
    const off = onChange((changed) => { if (topics.some((one) => changed.has(one))) void load(); });
    const onSeen = (): void => { if (!document.hidden) void load(); };
    document.addEventListener("visibilitychange", onSeen);
    return () => { stopped = true; window.clearTimeout(timer); control.abort(); off(); document.removeEventListener("visibilitychange", onSeen); };
  }, [key, seconds]);
  const reload = useCallback(() => again.current(), []);
  const fresh = state.key === key;
  return { data: fresh ? state.data : null, error: fresh ? state.error : null, loading: !fresh || state.loading, reload };
}
