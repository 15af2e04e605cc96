/** The author of the requests of this page: name, rights and logout. */
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { get, logOut } from "./api";
import { Name } from "./parts";

interface Session { name: string; kind: "key" | "session" | "local"; scope: string; streams: string[]; teams: string[] }

export function Account(): JSX.Element | null {
  const [session, setSession] = useState<Session | null>(null);
  useEffect(() => { void get<Session>("session").then(setSession, () => undefined); }, []);
  if (session === null || session.kind === "local") return null;
  const leave = (): void => { void logOut().then(() => location.assign("/login")); };
  return <>
    <span class="muted" title={`Scope: ${session.scope}`}><Name text={session.name} /></span>
    <button type="button" class="quiet" onClick={leave} aria-label={`Log out ${session.name}`}>Log out</button>
  </>;
}
