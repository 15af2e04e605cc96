/** Pages whose code is loaded when they are first opened. */
import type { ComponentType, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ErrorBox, Skeleton } from "./parts";
import { RequestError } from "./api";

export function later<P extends object>(load: () => Promise<ComponentType<P>>): (props: P) => JSX.Element {
  let found: ComponentType<P> | null = null;
  return function Later(props: P): JSX.Element {
    const [, redraw] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (found || failed) return;
      load().then((one) => { found = one; redraw((n) => n + 1); }, () => setFailed(true));
    }, [failed]);
    if (failed) return <ErrorBox error={new RequestError(0, "The page cannot be loaded", "The server does not answer, or it was upgraded: load the page again.")} retry={() => setFailed(false)} />;
    if (!found) return <Skeleton />;
    const Page = found as ComponentType<P>;
    return <Page {...props} />;
  };
}
