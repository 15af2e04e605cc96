/** Command palette: pages, series and commands, found by typing. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, type Page } from "./api";
import { KEYS } from "./keys";
import { PAGES } from "./main";
import { Name } from "./parts";
import { go, seriesAddress } from "./route";

interface Found { stream: string; series: string }
interface Command { name: string; hint: string; run: () => void }

/** Series whose names contain a text, with the text that they are of. */
function useSeries(text: string): { text: string; items: Found[] } {
  const [series, setSeries] = useState<{ text: string; items: Found[] }>({ text: "", items: [] });
  useEffect(() => {
    const control = new AbortController();
    const timer = window.setTimeout(() => {
      get<Page<Found>>("series", { text, limit: 12 }, control.signal)
        .then(({ items }) => setSeries({ text, items }), () => { if (!control.signal.aborted) setSeries({ text, items: [] }); });
    }, 120);
    return () => { window.clearTimeout(timer); control.abort(); };
  }, [text]);
  return series;
}

export function Palette({ close, toggleTheme }: { close: () => void; toggleTheme: () => void }): JSX.Element {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const series = useSeries(text);
  const entered = useRef("");
  const input = useRef<HTMLInputElement>(null);
  // Before the paint: a key typed right after Ctrl K belongs to the field, not to the page.
  useLayoutEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    input.current?.focus();
    return () => before?.focus();
  }, []);
  const commands = useMemo<Command[]>(() => {
    const all: Command[] = [
      ...PAGES.map((one) => ({ name: one.name, hint: `page · ${one.key}`, run: () => go(one.path) })),
      { name: "Switch dark and light", hint: "colours", run: toggleTheme },
    ];
    const wanted = text.toLowerCase();
    return [
      ...all.filter((one) => one.name.toLowerCase().includes(wanted)),
      // Those of an earlier text stay until the new ones arrive, as far as they match.
      ...series.items.filter((one) => series.text === text || one.series.toLowerCase().includes(wanted)).map((one) => ({ name: one.series, hint: `series · ${one.stream}`, run: () => go(seriesAddress(one.stream, one.series)) })),
    ];
  }, [text, series]);
  const chosen = Math.min(at, commands.length - 1);
  const run = (command: Command): void => { command.run(); close(); };
  // Enter before the series of the text have arrived opens the first of them.
  useEffect(() => { if (entered.current && entered.current === series.text && commands[0]) run(commands[0]); }, [series]);
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, commands.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key === "Enter" && commands[chosen]) run(commands[chosen]!);
    else if (event.key === "Enter") entered.current = text;
    else if (event.key === "Tab") { event.preventDefault(); return; }
    else return;
    event.preventDefault();
  };
  return <div class="veil" onClick={close}>
    <div class="palette" role="dialog" aria-modal="true" aria-label="Command palette" onClick={(event) => event.stopPropagation()} onKeyDown={onKey}>
      <input ref={input} type="text" role="combobox" aria-expanded="true" aria-controls="commands" aria-label="Search pages, series and commands"
        aria-activedescendant={chosen >= 0 ? `command-${chosen}` : undefined}
        placeholder="Search pages, series and commands" value={text} onInput={(event) => { setText(event.currentTarget.value); setAt(0); entered.current = ""; }} />
      <ul id="commands" role="listbox" aria-label="Results">{commands.map((one, n) =>
        <li key={`${one.hint}${one.name}`} id={`command-${n}`} role="option" aria-selected={n === chosen} onClick={() => run(one)}>
          <Name text={one.name} /><span class="muted">{one.hint}</span></li>)}</ul>
      <p class="keys">{KEYS.map(([key, does]) => <span key={key}><kbd>{key}</kbd> {does}</span>)}</p>
    </div>
  </div>;
}
