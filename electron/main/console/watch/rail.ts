/** The counts beside the desks' names, and the notices that come of their change. */
import { z } from "zod";
import {
  type Failure,
  financeCounts,
  type Notice,
  type RailCounts,
  railCounts,
  type UsageEvent,
  usageEventPage,
} from "../../../../shared/contract/index.ts";
import { ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import type { DeskContext } from "../desk-context.ts";
import { createTopic, type Topic } from "../topic.ts";
import type { Feed } from "./feed.ts";
import { createNewAlerts } from "./new-alerts.ts";
import { createNews } from "./news.ts";
import { eventsBefore } from "./watch.ts";

const remoteCounts = railCounts.pick({ open_alerts: true, flagged: true, blocked: true }).loose();
interface RemoteCounts extends Pick<RailCounts, "open_alerts" | "flagged" | "blocked"> {
  /** Null where the project keeps no reconciliation: then those of the last run here count. */
  readonly undecided: number | null;
}
const noCounts: RemoteCounts = { open_alerts: 0, flagged: 0, blocked: 0, undecided: null };
/** Counting reads indexes only, but still costs: this often at most. */
const refreshMs = 2_000;
/** Where an alert may have come, nobody should wait for it. */
const alertMs = 250;

interface RailOptions {
  readonly desk: DeskContext;
  readonly notices: Topic<Notice>;
  /** Alerts may have changed. */
  readonly alerts: Topic<unknown>;
  /** Differences of the last reconciliation made here. */
  readonly differences: () => number;
}

export function createRail({ desk, notices, alerts: alertsChanged, differences }: RailOptions) {
  let remote: RemoteCounts = noCounts;
  let isFirst = true;
  /** Counts the readings: one that another overtook says nothing. */
  let readings = 0;
  const newAlerts = createNewAlerts(desk);
  let timer: NodeJS.Timeout | null = null;
  /** When the timer ends, in milliseconds since 1970. */
  let dueAt = 0;
  let isClosed = false;
  let last = "";
  const news = createNews({ show: (notice) => notices.publish(notice), now: desk.now });

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

  async function refresh(): Promise<void> {
    const profileId = desk.connection.profileId();
    const mine = ++readings;
    const [answer, finance, alerts] = await Promise.all([
      desk.connection.rpc("console_rail_counts", {}, remoteCounts),
      desk.connection.rpc("console_finance_counts", {}, financeCounts),
      newAlerts.look(),
    ]);
    if (isClosed || profileId !== desk.connection.profileId()) return;
    news.add({ alerts, flagged: 0 });
    if (!answer.ok || mine !== readings) return;
    const { open_alerts, flagged, blocked } = answer.value;
    if (!isFirst) news.add({ alerts: [], flagged: Math.max(0, flagged - remote.flagged) });
    isFirst = false;
    let { undecided } = remote;
    if (finance.ok) undecided = finance.value.keeps_runs ? finance.value.undecided : null;
    remote = { open_alerts, flagged, blocked, undecided };
    publish();
  }

  function refreshIn(ms: number): void {
    const at = Date.now() + ms;
    if (isClosed || (timer && dueAt <= at)) return;
    if (timer) clearTimeout(timer);
    dueAt = at;
    timer = setTimeout(() => {
      timer = null;
      void refresh();
    }, ms);
  }
  const stopAlerts = alertsChanged.follow(() => refreshIn(alertMs));

  return {
    topic,
    refreshLocal: publish,
    refreshSoon: () => refreshIn(refreshMs),
    /** Another project: its counts are not known yet. */
    reset(): void {
      remote = noCounts;
      isFirst = true;
      newAlerts.reset();
      news.clear();
      publish();
    },
    close(): void {
      isClosed = true;
      stopAlerts();
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
export async function readStartCursor(
  backend: Backend,
  profileId: string,
  feed: Feed,
): Promise<Result<string | null, Failure>> {
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
  if (recent.ok) feed.seed(profileId, await withFacts(backend, recent.value.events.toReversed()));
  return ok(head.value.next_cursor);
}

/** The same events with the facts of their calls, as far as the project answers at once. */
async function withFacts(backend: Backend, events: readonly UsageEvent[]): Promise<readonly UsageEvent[]> {
  const [first] = events;
  if (!first) return events;
  const page = await backend.rpc(
    "usage_events_since",
    { p_cursor: null, p_limit: 1_000, p_filter: { facts: true, since: first.at } },
    usageEventPage,
    { retries: 1 },
  );
  if (!page.ok) return events;
  const told = new Map(page.value.events.map((event) => [event.event_id, event]));
  return events.map((event) => told.get(event.event_id) ?? event);
}
