/** Parts that several pages share: severity, states of loading and failure, tables, links. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Loaded, Page, RequestError } from "./api";
import { go } from "./route";
import { countText, msOf, offsetText, timeText } from "./format";

export type Severity = "info" | "warning" | "major" | "critical";
export const SEVERITIES: Severity[] = ["info", "warning", "major", "critical"];
/** A shape beside the colour, so that nothing depends on colour alone. */
const SHAPES: Record<Severity, string> = { info: "○", warning: "△", major: "◆", critical: "■" };

export function SeverityMark({ severity, text = true }: { severity: string; text?: boolean }): JSX.Element {
  const shape = SHAPES[severity as Severity] ?? "○";
  return <span class={`severity ${severity}`}><span aria-hidden="true">{shape}</span>{text ? ` ${severity}` : <span class="hidden">{severity}</span>}</span>;
}

/** Text without characters that turn the direction of writing, or that no one sees. */
export function plain(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Text from outside: directions of writing stay inside it, and a long one is cut with its whole text as a title. */
export function Name({ text, long = false }: { text: string; long?: boolean }): JSX.Element {
  return <bdi class={long ? "name long" : "name"} title={plain(text)}>{plain(text) || "(no name)"}</bdi>;
}

interface LinkProps {
  to: string; children: ComponentChildren; class?: string; title?: string; "aria-label"?: string; "aria-current"?: "page" | undefined; "data-row"?: boolean;
}

export function Link({ to, children, ...rest }: LinkProps): JSX.Element {
  return <a href={to} {...rest} onClick={(event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(to);
  }}>{children}</a>;
}

export function CopyButton({ text, primary = false }: { text: string; primary?: boolean }): JSX.Element {
  const [result, setResult] = useState("");
  useEffect(() => setResult(""), [text]);
  const copy = (): void => { void navigator.clipboard.writeText(text).then(() => setResult("Copied."), () => setResult("The browser refused; select the text instead.")); };
  return <span><span role="status" class="done">{result}</span> <button type="button" class={primary ? "primary" : ""} onClick={copy}>Copy</button></span>;
}

/** A message of the command line as a sentence of a page: what stands in backquotes is code. */
export function Sentence({ text }: { text: string }): JSX.Element {
  const begins = /^[a-z]+[ ,]/.test(text); // neither the address of a database nor a path begins a sentence
  const whole = `${begins ? text.charAt(0).toUpperCase() + text.slice(1) : text}${/[.!?]$/.test(text) ? "" : "."}`;
  return <bdi>{whole.split("`").map((part, n) => (n % 2 ? <code key={n}>{part}</code> : part))}</bdi>;
}

export function ErrorBox({ error, retry }: { error: RequestError; retry?: () => void }): JSX.Element {
  return <div class="box error" role="alert">
    <h2>{error.title}</h2>
    <p><Sentence text={error.detail} /></p>
    {retry && <button type="button" onClick={retry}>Try again now</button>}
  </div>;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }): JSX.Element {
  return <div class="box empty"><h2>{title}</h2>{children}</div>;
}

export function Skeleton(): JSX.Element {
  return <div class="skeleton" role="status" aria-label="Loading">{[1, 2, 3, 4, 5, 6].map((n) => <div key={n} class={`bone b${n}`} />)}</div>;
}

/** The server answers, but its database and detectors are still loaded; the view asks again by itself. */
function Starting({ error }: { error: RequestError }): JSX.Element {
  return <><div class="box starting" role="status"><h2><span class="spinner" aria-hidden="true" />{error.title}</h2><p>{error.detail.replace("Repeat the request then.", "This page continues by itself.")}</p></div><Skeleton /></>;
}

/** The states of a view around its content: loading, failed, and stale (failed, but an earlier answer is there). */
export function Shown<T>({ view, children }: { view: Loaded<T>; children: (data: T) => ComponentChildren }): JSX.Element {
  if (view.data === null && view.error?.starting) return <Starting error={view.error} />;
  if (view.data === null) return view.error ? <ErrorBox error={view.error} retry={view.reload} /> : <Skeleton />;
  return <>
    {view.error && <div class="stale" role="status"><b>{view.error.title}.</b> {view.error.detail} Shown is the last answer.</div>}
    {children(view.data)}
  </>;
}

/** Roles are explicit, since narrow windows show rows as paragraphs. */
export function Table({ label, columns, rows, empty }: {
  label: string; columns: string[]; rows: { key: string; cells: ComponentChildren[]; }[]; empty: string;
}): JSX.Element {
  if (!rows.length) return <p class="muted">{empty}</p>;
  return <div class="scroll" role="region" aria-label={label} tabIndex={0}><table role="table"><caption class="hidden">{label}</caption>
    <thead role="rowgroup"><tr role="row">{columns.map((name) => <th key={name} role="columnheader" scope="col">{name}</th>)}</tr></thead>
    <tbody role="rowgroup">{rows.map((row) => <tr key={row.key} role="row" tabIndex={-1} data-row>{row.cells.map((cell, at) => <td key={at} role="cell" data-label={columns[at]}>{cell}</td>)}</tr>)}</tbody>
  </table></div>;
}

/** Beneath a list that is longer than what is shown: where the rest is. */
export function More({ page, what, command }: { page: Page<unknown> | null; what: string; command: string }): JSX.Element | null {
  if (!page?.next_cursor) return null;
  return <p class="muted">The newest {countText(page.items.length)} {what} are shown; <code>{command}</code> lists the others.</p>;
}

export function Fields({ fields }: { fields: [string, ComponentChildren][] }): JSX.Element {
  return <dl class="fields">{fields.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>;
}

export function Section({ title, children, aside }: { title: string; children: ComponentChildren; aside?: ComponentChildren }): JSX.Element {
  return <section class="card"><header><h2>{title}</h2>{aside}</header>{children}</section>;
}

export function When({ ms: given, at }: { ms?: number | null | undefined; at?: string | null | undefined }): JSX.Element {
  const ms = given ?? msOf(at);
  return ms === null || ms === undefined ? <span>–</span> : <time dateTime={new Date(ms).toISOString()} title={`${offsetText(ms)} · ${new Date(ms).toISOString()}`}>{timeText(ms)}</time>;
}
