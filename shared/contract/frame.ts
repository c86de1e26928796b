/** What surrounds the desks: the counts beside their names, notices, and the search over everything. */
import { z } from "zod";
import { nothing, operation, whole } from "./basics.ts";

export const railCounts = z.object({
  open_alerts: whole,
  flagged: whole,
  blocked: whole,
  pending: whole,
  conflicts: whole,
  differences: whole,
});
export type RailCounts = z.infer<typeof railCounts>;

/** What waits for a person: the number in titles and on the program's badge. */
export const waitingOf = ({ open_alerts: alerts = 0, conflicts = 0 }: Partial<RailCounts>): number =>
  alerts + conflicts;

/** Something worth interrupting a person for. */
const notice = z.object({
  level: z.enum(["info", "warning", "error"]),
  title: z.string(),
  /** Whom it is about, by their own name: shown after the title. */
  about: z.string().optional(),
  body: z.string(),
  /** The screen that shows it, such as `/alerts`. */
  place: z.string().startsWith("/").optional(),
});
export type Notice = z.infer<typeof notice>;
/** Its title in the person's words, and whom it is about. */
export const noticeTitle = (title: string, about: string | undefined): string =>
  about === undefined ? title : `${title}: ${about}`;

export const searchHit = z.looseObject({
  kind: z.enum(["user", "rule", "request", "payment", "event", "case"]),
  id: z.string(),
  title: z.string(),
  subtitle: z.string().nullable(),
});
export type SearchHit = z.infer<typeof searchHit>;

export const frameOperations = {
  "search.everything": operation(z.object({ query: z.string().max(500) }).strict(), z.array(searchHit)),
} as const;

export const frameStreams = {
  rail: { input: nothing, item: railCounts },
  /** Things worth interrupting a person for. */
  notices: { input: nothing, item: notice },
} as const;
