/** The author of the requests of this page, and what its rights allow. */
import { useEffect, useState } from "preact/hooks";
import { get } from "./api";

export interface Session { name: string; kind: "key" | "session" | "local"; scope: string; streams: string[]; teams: string[] }

let asked: Promise<Session | null> | null = null;

export function useSession(): Session | null {
  const [session, setSession] = useState<Session | null>(null);
  useEffect(() => {
    asked ??= get<Session>("session").catch(() => { asked = null; return null; });
    void asked.then(setSession);
  }, []);
  return session;
}

/** Why this person cannot change anything; undefined if changes are allowed, or while that is not known. */
export function useRefusal(): string | undefined {
  return useSession()?.scope === "viewer" ? "Your login has the scope viewer. Changes need operator." : undefined;
}
