/** Around the desks: the counts beside their names, and notices. */
import { z } from "zod";
import { nothing, whole } from "./basics.ts";

export const railCounts = z.object({
  open_alerts: whole,
  flagged: whole,
  blocked: whole,
  pending: whole,
  conflicts: whole,
  differences: whole,
});
export type RailCounts = z.infer<typeof railCounts>;

/** How much waits for a person: the number in titles and on the program's badge. */
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
/** A notice's title, which the caller has put into the person's language, with whom it is about. */
export const noticeTitle = (title: string, about: string | undefined): string =>
  about === undefined ? title : `${title}: ${about}`;

export const railStreams = {
  rail: { input: nothing, item: railCounts },
  /** Things worth interrupting a person for. */
  notices: { input: nothing, item: notice },
} as const;
