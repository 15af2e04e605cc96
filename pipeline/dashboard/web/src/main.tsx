/** Frame of all pages: navigation, keys, command palette, theme and the state of the connection. */
import { render, type JSX } from "preact";
import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { later } from "./later";
import "./style.css";
import { Account } from "./account";
import { AlertingPage } from "./alerting";
import { AuditPage } from "./audit";
import { FleetPage } from "./fleet";
import { IncidentPage } from "./incident";
import { offsetText, zone } from "./format";
import { startKeys } from "./keys";
import { startEvents, useConnection } from "./live";
import { ModelsPage } from "./models";
import { Palette } from "./palette";
import { Empty, Link, plain } from "./parts";
import { go, useLocation } from "./route";
import { SystemPage } from "./system";

/** Pages with charts: their library is loaded with them. */
const SeriesPage = later<{ query: URLSearchParams }>(() => import("./series").then((found) => found.SeriesPage));
const TryPage = later<{ query: URLSearchParams }>(() => import("./tryout").then((found) => found.TryPage));

export const PAGES: { path: string; name: string; key: string }[] = [
  { path: "/", name: "Fleet", key: "f" },
  { path: "/alerting", name: "Alerting", key: "a" },
  { path: "/models", name: "Models", key: "m" },
  { path: "/try", name: "Try", key: "t" },
  { path: "/system", name: "System", key: "s" },
  { path: "/audit", name: "Audit", key: "u" },
];

const INCIDENT = /^\/(alerts|anomalies)\/([0-9a-f-]{4,36})$/;

function page(path: string, query: URLSearchParams): JSX.Element {
  if (path === "/" || path === "/fleet") return <FleetPage query={query} />;
  if (path === "/series") return <SeriesPage query={query} />;
  if (path === "/alerting") return <AlertingPage />;
  if (path === "/models") return <ModelsPage query={query} />;
  if (path === "/try") return <TryPage query={query} />;
  if (path === "/system") return <SystemPage />;
  if (path === "/audit") return <AuditPage />;
  const incident = INCIDENT.exec(path);
  if (incident) return <IncidentPage id={incident[2]!} />;
  return <div class="page"><h1 class="hidden">Not found</h1><Empty title="There is no such page"><p><code>{plain(path)}</code> is not an address of this dashboard. It may be mistyped, or the link may be of another version.</p>
    <p class="actions">{PAGES.map((one) => <Link key={one.path} to={one.path} class="button">{one.name}</Link>)}</p></Empty></div>;
}

type Theme = "dark" | "light";

function useTheme(): [Theme, () => void] {
  const preferred: Theme = window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  const [theme, setTheme] = useState<Theme>((localStorage.getItem("theme") as Theme | null) ?? preferred);
  useLayoutEffect(() => { document.documentElement.dataset["theme"] = theme; window.dispatchEvent(new Event("theme")); }, [theme]);
  return [theme, () => {
    const next = theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    setTheme(next);
  }];
}

const CONNECTION = { live: "Live", connecting: "Connecting …", lost: "Not connected; trying again" };

function App(): JSX.Element {
  const { path, query } = useLocation();
  const [theme, toggleTheme] = useTheme();
  const [palette, setPalette] = useState(false);
  const connection = useConnection();
  useLayoutEffect(() => startKeys({ open: go, palette: () => setPalette(true) }), []);
  useEffect(() => {
    const name = PAGES.find((one) => one.path === path)?.name ?? (path === "/series" ? query.get("series") : INCIDENT.test(path) ? "Incident" : "Not found");
    document.title = `${name ?? ""} · forewatch`;
  }, [path, query.get("series")]);
  return <>
    <a class="skip" href="#content">Skip to the content</a>
    <nav aria-label="Pages">
      <Link to="/" class="brand" aria-label="forewatch, fleet"><img src="/favicon.svg" alt="" width="24" height="24" /><span>forewatch</span></Link>
      <div class="pages">{PAGES.map((one) => <Link key={one.path} to={one.path} aria-current={path === one.path ? "page" : undefined}
        title={`Key: ${one.key}`}>{one.name}</Link>)}</div>
      <span class={`connection ${connection}`} role="status"><span aria-hidden="true" class="dot" /> <span class="words">{CONNECTION[connection]}</span></span>
      <Account />
      <span class="zone muted" title={`Times are those of ${zone}`}>{zone === "UTC" ? "UTC" : `${zone.split("/").pop()!.replaceAll("_", " ")}, ${offsetText(Date.now())}`}</span>
      <button type="button" class="quiet" onClick={() => setPalette(true)} aria-label="Command palette" title="Ctrl K">⌘</button>
      <button type="button" class="quiet" onClick={toggleTheme} aria-label={theme === "dark" ? "Light colours" : "Dark colours"}>{theme === "dark" ? "☀" : "☾"}</button>
    </nav>
    <main id="content" tabIndex={-1} key={path}>{page(path, query)}</main>
    {palette && <Palette close={() => setPalette(false)} toggleTheme={toggleTheme} />}
  </>;
}

startEvents();
render(<App />, document.getElementById("app")!);
