import type { JSX } from "preact";
import { Empty } from "./parts";
export function AlertingPage(_: Record<string, unknown>): JSX.Element { return <Empty title="Not built yet" />; }
