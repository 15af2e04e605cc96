/** A button whose change is confirmed in a dialog, which then shows the result. */
import type { ComponentChildren, JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { RequestError } from "./api";
import { useRefusal } from "./session";

interface Props {
  label: string; title: string; children: ComponentChildren; class?: string; disabled?: boolean; "aria-label"?: string;
  /** Makes the change and returns the result as a sentence. */
  run: () => Promise<string>;
  /** Runs when the dialog opens, for example to count what would be changed. */
  onOpen?: () => void;
  /** Runs when the dialog closes after a change: reading the list before may remove this button, and its result with it. */
  onDone?: () => void;
}

export function errorText(error: unknown): string {
  return error instanceof RequestError ? `${error.title}: ${error.detail}` : String(error);
}

export function ConfirmButton({ label, title, children, run, onOpen, onDone, ...rest }: Props): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [result, setResult] = useState<{ text: string; failed: boolean } | null>(null);
  const [busy, setBusy] = useState(false);
  const refusal = useRefusal();
  const open = (): void => { setResult(null); onOpen?.(); dialog.current?.showModal(); };
  const confirm = async (): Promise<void> => {
    setBusy(true);
    try { setResult({ text: await run(), failed: false }); } catch (error) { setResult({ text: errorText(error), failed: true }); }
    setBusy(false);
  };
  return <>
    <button type="button" {...rest} disabled={rest.disabled === true || refusal !== undefined} title={refusal} onClick={open}>{label}</button>
    <dialog ref={dialog} aria-label={title} onClose={() => { if (result && !result.failed) onDone?.(); }} onClick={(event) => { if (event.target === dialog.current) dialog.current?.close(); }}><div>
      <h2>{title}</h2>
      {children}
      <p role="status" class={result ? (result.failed ? "failed" : "done") : "hidden"}>{result?.text}</p>
      <div class="actions">
        {result && !result.failed ? <button type="button" class="primary" onClick={() => dialog.current?.close()}>Close</button> : <>
          <button type="button" class="primary" disabled={busy} onClick={() => void confirm()}>{busy ? "…" : label}</button>
          <button type="button" onClick={() => dialog.current?.close()}>Cancel</button></>}
      </div>
    </div></dialog>
  </>;
}
