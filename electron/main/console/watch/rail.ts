/** The counts beside the desks' names, and the notices that come of their change. */
import { z } from "zod";
import {
  alert,
  type Failure,
  financeCounts,
  type Notice,
  type RailCounts,
  railCounts,
} from "../../../../shared/contract/index.ts";
import { alertKind } from "../../../../shared/governance/alerts/kinds.ts";
import { ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import type { DeskContext } from "../desk-context.ts";
import { createTopic, type Topic } from "../topic.ts";
import type { Feed } from "./feed.ts";
import { createNews, type News } from "./news.ts";
import { eventsBefore } from "./watch.ts";

const remoteCounts = railCounts.pick({ open_alerts: true, flagged: true, blocked: true }).loose();
interface RemoteCounts extends Pick<RailCounts, "open_alerts" | "flagged" | "blocked"> {
  /** Null where the project keeps no reconciliation: then those of the last run here count. */
  readonly undecided: number | null;
}
const noCounts: RemoteCounts = { open_alerts: 0, flagged: 0, blocked: 0, undecided: null };
/** Counting reads indexes, but not for nothing: this often at most. */
const refreshMs = 2_000;
const urgentMs = 300;

const newAlertPage = z.looseObject({ alerts: z.array(alert) });

export interface RailOptions {
  readonly desk: DeskContext;
  readonly notices: Topic<Notice>;
  /** Differences of the last reconciliation made here. */
  readonly differences: () => number;
}

export function createRail({ desk, notices, differences }: RailOptions) {
  let remote: RemoteCounts = noCounts;
  let isFirst = true;
  let newestAlert: number | null = null;
  let timer: NodeJS.Timeout | null = null;
  let last = "";
  const news = createNews({ tell: (notice) => notices.publish(notice), now: desk.now });

  function counts(): RailCounts {
    const profileId = desk.connection.profileId();
    const waiting = profileId === null ? [] : desk.store.listIntents(profileId);
    return {
      open_alerts: remote.open_alerts,
      flagged: remote.flagged,
      blocked: remote.blocked,
      pending: waiting.filter(({ status }) => status === "pending").length,
      conflicts: waiting.filter(({ status }) => status === "conflict" || status === "failed").length,
      differences: remote.undecided ?? differences(),
    };
  }
  const topic = createTopic<RailCounts>(counts);

  function publish(): void {
    const now = counts();
    const text = JSON.stringify(now);
    if (text === last) return;
    last = text;
    topic.publish(now);
  }

  /** Those raised since the last look; at the first look only how far it has come. */
  async function newAlerts(): Promise<readonly News["alerts"][number][]> {
    const after = newestAlert;
    const page = await desk.connection.rpc(
      "console_alerts",
      {
        p_open_only: true,
        p_limit: after === null ? 1 : 50,
        p_filter: { needs_operator: true, ...(after === null ? {} : { after_id: after }) },
      },
      newAlertPage,
    );
    if (!page.ok) return [];
    newestAlert = Math.max(after ?? 0, page.value.alerts[0]?.alert_event_id ?? 0);
    if (after === null) return [];
    return page.value.alerts.toReversed().map(({ kind, severity, message, display_name: name }) => ({
      title: `${alertKind(kind)?.kind.title ?? "Alert"}${name ? `: ${name}` : ""}`,
      body: message,
      isCritical: severity === "critical",
    }));
  }

  async function refresh(): Promise<void> {
    const profileId = desk.connection.profileId();
    const [answer, finance, alerts] = await Promise.all([
      desk.connection.rpc("console_rail_counts", {}, remoteCounts),
      desk.connection.rpc("console_finance_counts", {}, financeCounts),
      newAlerts(),
    ]);
    if (!answer.ok || profileId !== desk.connection.profileId()) return;
    const { open_alerts, flagged, blocked } = answer.value;
    if (!isFirst)
      news.add({
        alerts,
        flagged: Math.max(0, flagged - remote.flagged),
      });
    isFirst = false;
    const undecided = finance.ok && finance.value.keeps_runs ? finance.value.undecided : null;
    remote = { open_alerts, flagged, blocked, undecided };
    publish();
  }

  return {
    topic,
    refreshLocal: publish,
    /** `isUrgent`: an alert may have come, which nobody should wait for. */
    refreshSoon(isUrgent = false): void {
      if (isUrgent && timer) clearTimeout(timer);
      if (isUrgent) timer = null;
      timer ??= setTimeout(
        () => {
          timer = null;
          void refresh();
        },
        isUrgent ? urgentMs : refreshMs,
      );
    },
    /** Another project: its counts are not known yet. */
    reset(): void {
      remote = noCounts;
      isFirst = true;
      newestAlert = null;
      news.clear();
      publish();
    },
    close(): void {
      news.clear();
      if (timer) clearTimeout(timer);
    },
  };
}

const feedHead = z.looseObject({ next_cursor: z.string().nullable() });

/**
 * Where a console that never read this project begins: at the newest event, with some before it to look at. The
 * cursor is taken first, so that nothing falls between the two.
 */
export async function readStartCursor(backend: Backend, feed: Feed): Promise<Result<string | null, Failure>> {
  const head = await backend.rpc(
    "usage_events_since",
    { p_cursor: "now", p_limit: 1, p_filter: {} },
    feedHead,
    { retries: 1 },
  );
  if (!head.ok) return head;
  const recent = await backend.rpc(
    "console_events_before",
    { p_before_event_id: null, p_limit: 500, p_filter: {} },
    eventsBefore,
    { retries: 1 },
  );
  if (recent.ok) feed.seed(recent.value.events.toReversed());
  return ok(head.value.next_cursor);
}
