import type { JSX } from "preact";
import { Empty } from "./parts";
export function IncidentPage(_: Record<string, unknown>): JSX.Element { return <Empty title="Not built yet" />; }
