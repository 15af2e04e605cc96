/** The author of the requests of this page: name, rights and logout. */
import type { JSX } from "preact";
import { logOut } from "./api";
import { Name } from "./parts";
import { useSession } from "./session";

export function Account(): JSX.Element | null {
  const session = useSession();
  if (session === null || session.kind === "local") return null;
  const leave = (): void => { void logOut().then(() => location.assign("/login")); };
  return <>
    <span class="muted" title={`Scope: ${session.scope}`}><Name text={session.name} />{session.scope === "viewer" && " (viewer)"}</span>
    <button type="button" class="quiet" onClick={leave} aria-label={`Log out ${session.name}`}>Log out</button>
  </>;
}
