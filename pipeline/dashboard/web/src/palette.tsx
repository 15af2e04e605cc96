/** Command palette: pages, series and commands, found by typing. */
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, type Page } from "./api";
import { KEYS } from "./keys";
import { PAGES } from "./main";
import { Name } from "./parts";
import { go, seriesAddress } from "./route";

interface Command { name: string; hint: string; run: () => void }

export function Palette({ close, toggleTheme }: { close: () => void; toggleTheme: () => void }): JSX.Element {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [series, setSeries] = useState<{ stream: string; series: string }[]>([]);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    input.current?.focus();
    return () => before?.focus();
  }, []);
  useEffect(() => {
    const control = new AbortController();
    const timer = window.setTimeout(() => {
      get<Page<{ stream: string; series: string }>>("series", { text, limit: 12 }, control.signal)
        .then((found) => setSeries(found.items), () => setSeries([]));
    }, 120);
    return () => { window.clearTimeout(timer); control.abort(); };
  }, [text]);
  const commands = useMemo<Command[]>(() => {
    const all: Command[] = [
      ...PAGES.map((one) => ({ name: one.name, hint: `page · ${one.key}`, run: () => go(one.path) })),
      { name: "Switch dark and light", hint: "colours", run: toggleTheme },
    ];
    const wanted = text.toLowerCase();
    return [
      ...all.filter((one) => one.name.toLowerCase().includes(wanted)),
      ...series.map((one) => ({ name: one.series, hint: `series · ${one.stream}`, run: () => go(seriesAddress(one.stream, one.series)) })),
    ];
  }, [text, series]);
  const chosen = Math.min(at, commands.length - 1);
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, commands.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key === "Enter" && commands[chosen]) { commands[chosen]!.run(); close(); }
    else if (event.key === "Tab") { event.preventDefault(); return; }
    else return;
    event.preventDefault();
  };
  return <div class="veil" onClick={close}>
    <div class="palette" role="dialog" aria-modal="true" aria-label="Command palette" onClick={(event) => event.stopPropagation()} onKeyDown={onKey}>
      <input ref={input} type="text" role="combobox" aria-expanded="true" aria-controls="commands" aria-label="Search pages, series and commands"
        aria-activedescendant={chosen >= 0 ? `command-${chosen}` : undefined}
        placeholder="Search pages, series and commands" value={text} onInput={(event) => { setText(event.currentTarget.value); setAt(0); }} />
      <ul id="commands" role="listbox" aria-label="Results">{commands.map((one, n) =>
        <li key={`${one.hint}${one.name}`} id={`command-${n}`} role="option" aria-selected={n === chosen} onClick={() => { one.run(); close(); }}>
          <Name text={one.name} /><span class="muted">{one.hint}</span></li>)}</ul>
      <p class="keys">{KEYS.map(([key, does]) => <span key={key}><kbd>{key}</kbd> {does}</span>)}</p>
    </div>
  </div>;
}
