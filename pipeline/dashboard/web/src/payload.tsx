/** The message of one delivery as its receiver got it, and every attempt. */
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { get } from "./api";
import { errorText } from "./confirm";
import type { Delivery } from "./incident";
import { numberText } from "./format";
import { Name, Table, When } from "./parts";

interface Detail { log: { attempt: number; outcome: string; status: number | null; answer: string; started: string; seconds: number }[]; payload: string | null }

/** The payload with line breaks, if it is JSON. */
function payloadText(payload: string | null): string {
  if (payload === null) return "The message is no longer stored.";
  try { return JSON.stringify(JSON.parse(payload), null, 2); } catch { return payload; }
}

export function PayloadButton({ delivery }: { delivery: Delivery }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [found, setFound] = useState<Detail | null>(null);
  const [error, setError] = useState("");
  const open = (): void => {
    setError("");
    dialog.current?.showModal();
    get<Detail>(`deliveries/${delivery.id}`).then(setFound, (failure: unknown) => setError(errorText(failure)));
  };
  return <>
    <button type="button" class="quiet" onClick={open} aria-label={`Message to ${delivery.endpoint}`}>Message</button>
    <dialog ref={dialog} class="wide" aria-label="Message" onClick={(event) => { if (event.target === dialog.current) dialog.current?.close(); }}><div>
      <h2>Message to <Name text={delivery.endpoint} /></h2>
      {error && <p class="failed" role="alert">{error}</p>}
      {!found && !error && <p role="status">Loading …</p>}
      {found && <><Table label="Attempts" columns={["Attempt", "At", "Took", "Result", "Status", "Answer"]} empty="No attempt yet."
        rows={found.log.map((one) => ({ key: String(one.attempt), cells: [String(one.attempt), <When at={one.started} />, `${numberText(one.seconds, 3)} s`, one.outcome.replaceAll("_", " "), one.status === null ? "–" : String(one.status), <bdi>{one.answer}</bdi>] }))} />
        <pre tabIndex={0} aria-label="Payload">{payloadText(found.payload)}</pre></>}
      <div class="actions"><button type="button" class="primary" onClick={() => dialog.current?.close()}>Close</button></div>
    </div></dialog>
  </>;
}
