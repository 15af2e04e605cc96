/** Addresses of pages: the path names the page, the query its settings. */
import { useLayoutEffect, useState } from "preact/hooks";

const listeners = new Set<() => void>();

export function go(to: string, replace = false): void {
  if (to === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  listeners.forEach((listener) => listener());
  if (!replace) window.scrollTo(0, 0);
}

window.addEventListener("popstate", () => listeners.forEach((listener) => listener()));

export function useLocation(): { path: string; query: URLSearchParams } {
  const [, redraw] = useState(0);
  useLayoutEffect(() => { // before the paint: what is seen can be clicked
    const listener = () => redraw((n) => n + 1);
    listeners.add(listener);
    return () => { listeners.delete(listener); };
  }, []);
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

/** Change some settings in the query of the address. */
export function setQuery(changes: Record<string, string | null>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name); else query.set(name, value);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ""), true);
}

export function seriesAddress(stream: string, series: string, more: Record<string, string> = {}): string {
  return `/series?${new URLSearchParams({ stream, series, ...more }).toString()}`;
}

/** Detection on the recorded points of a series, of one channel or the first one, with other settings. */
export function tryAddress(stream: string, series: string, channel = ""): string {
  return `/try?${new URLSearchParams({ stream, series, ...(channel ? { channel } : {}) }).toString()}`;
}
