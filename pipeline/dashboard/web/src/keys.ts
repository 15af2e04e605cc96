/** Keys of all pages. Keys are left alone while something is typed. */

export const KEYS: [string, string][] = [
  ["j / k", "next and previous row"], ["Enter", "open the row"], ["/", "filter"], ["f", "Fleet"], ["a", "Alerting"],
  ["m", "Models"], ["t", "Try"], ["s", "System"], ["u", "Audit"], ["Ctrl K or ?", "command palette"], ["[ / ]", "pan a chart"],
  ["+ / −", "zoom a chart"], ["Esc", "close, or leave a field"],
];

const PAGES: Record<string, string> = { f: "/", a: "/alerting", m: "/models", t: "/try", s: "/system", u: "/audit" };

/** Rows that j and k go through: links of lanes and rows of tables, in the order of the page. */
function moveFocus(step: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("main [data-row]")].sort(
    (one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top);
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement as HTMLElement);
  const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)]!;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

export function startKeys(actions: { open: (to: string) => void; palette: () => void }): () => void {
  const onKey = (event: KeyboardEvent): void => {
    const target = event.target as HTMLElement;
    const typing = target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      actions.palette();
      return;
    }
    if (event.key === "Escape" && typing) target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("[role=dialog], dialog[open]")) return;
    if (event.key === "?") {
      event.preventDefault(); // the palette takes the focus at once: the key itself is not typed into it
      actions.palette();
    }
    else if (event.key === "/") {
      event.preventDefault();
      document.querySelector<HTMLElement>("[data-filter]")?.focus();
    } else if (event.key === "j") moveFocus(1);
    else if (event.key === "k") moveFocus(-1);
    else if (event.key === "Enter" && target.tagName === "TR") target.querySelector<HTMLElement>("a")?.click();
    else if (PAGES[event.key]) actions.open(PAGES[event.key]!);
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
