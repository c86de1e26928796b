import type { ReactNode } from "react";
import type { AlertPage } from "../../../../shared/contract/alerts.ts";
import { useNow } from "../../lib/clock.ts";
import { counted } from "../../lib/text.ts";
import { Note, Time } from "../../ui/parts.tsx";
import css from "./alerts.module.css";

/** Upkeep runs every minute. */
const UPKEEP_LATE_MS = 10 * 60_000;

/** What keeps alerts from being raised and delivered, if anything does. */
export function DeliveryLine({
  delivery,
  isSample,
  show,
}: {
  readonly delivery: AlertPage["delivery"];
  readonly isSample: boolean;
  /** Which alerts are listed. */
  readonly show: string;
}): ReactNode {
  const now = useNow(60_000);
  const parts: ReactNode[] = [];
  if (!delivery.upkeep_at || Date.parse(delivery.upkeep_at) < now - UPKEEP_LATE_MS)
    parts.push(
      <Note key="upkeep" tone="amber" role="status">
        {delivery.upkeep_at ? (
          <>
            Upkeep last ran <Time at={delivery.upkeep_at} />
          </>
        ) : (
          "Upkeep has never run"
        )}
        : budgets, sudden use and expired holds are not looked at. Have run_maintenance called every minute.
      </Note>,
    );
  if (delivery.overdue_since && !isSample)
    parts.push(
      <Note key="overdue" tone="amber" role="status">
        {counted(delivery.queued, "message")} {delivery.queued === 1 ? "waits" : "wait"}, the first since{" "}
        <Time at={delivery.overdue_since} />: nobody delivers them. Run <code>npm run deliver</code>, or
        schedule the Edge Function deliver-notifications.
      </Note>,
    );
  if (delivery.overdue_since && isSample)
    parts.push(
      <Note key="sample" tone="grey">
        {counted(delivery.queued, "message")} queued. Sample data is not sent to anybody unless you start{" "}
        <code>npm run deliver</code>.
      </Note>,
    );
  if (delivery.failed > 0 && show !== "undelivered")
    parts.push(
      <Note key="failed" tone="red" role="status">
        {counted(delivery.failed, "message")} could not be delivered.{" "}
        <a href="#/alerts?show=undelivered">See which</a>
      </Note>,
    );
  return parts.length === 0 ? null : <div className={css.notes}>{parts}</div>;
}
