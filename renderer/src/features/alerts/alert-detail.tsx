import { readOnlyWords, useIsReadOnly } from "../../lib/live.ts";
import { Button } from "@mantine/core";
import { type ReactNode } from "react";
import type { Alert, Notification } from "../../../../shared/contract/alerts.ts";
import { alertAmount, alertThreshold } from "../../../../shared/governance/alerts/words.ts";
import { alertSentence } from "../../lib/alert-sentences.ts";
import { formatPeriod } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { codeWords } from "../../lib/text.ts";
import { CheckIcon, RefreshIcon } from "../../ui/icons.tsx";
import { Facts, Id, SafeText, Section, Tag, Time, UserName } from "../../ui/parts.tsx";
import { notificationSign, notificationTarget, severitySign } from "./alert-words.ts";
import { Causes } from "./causes.tsx";
import css from "./alerts.module.css";

export function AlertDetail({
  alert,
  currency,
  waits,
  onAcknowledge,
  onSendAgain,
}: {
  readonly alert: Alert;
  readonly currency: string;
  /** Acknowledged here, and not yet sent to the project. */
  readonly waits: boolean;
  readonly onAcknowledge: () => void;
  readonly onSendAgain: (notification: Notification) => void;
}): ReactNode {
  const isReadOnly = useIsReadOnly();
  const isSeen = waits || alert.acknowledged_at !== null;
  return (
    <div className={css.alert}>
      <p className={css.said}>
        <SafeText text={alertSentence(alert, currency)} length={400} />
      </p>
      <div className={css.buttons}>
        <Button
          variant={isSeen ? "default" : "filled"}
          disabled={isSeen || isReadOnly}
          leftSection={<CheckIcon size={14} />}
          title={isReadOnly ? readOnlyWords : "Acknowledge (a)"}
          onClick={onAcknowledge}
        >
          {isSeen ? "Acknowledged" : "Acknowledge"}
        </Button>
        {alert.user_id ? (
          <Button component="a" href={`#${placeAddress(["users", alert.user_id])}`}>
            Open user
          </Button>
        ) : null}
        {alert.decision_id === null ? null : (
          <Button component="a" href={`#${placeAddress(["watch", "decisions", String(alert.decision_id)])}`}>
            Open decision
          </Button>
        )}
        {alert.kind === "unknown_price" && typeof alert.details["model"] === "string" ? (
          <>
            <Button component="a" href={`#${placeAddress(["watch"], { model: alert.details["model"] })}`}>
              Its calls
            </Button>
            <Button component="a" href={`#${placeAddress(["plans"], { do: "prices" })}`}>
              Set its price
            </Button>
          </>
        ) : null}
      </div>
      <AlertFacts alert={alert} currency={currency} waits={waits} />
      <Causes alertEventId={alert.alert_event_id} />
      <Section title="Who was notified">
        {alert.notifications.length === 0 ? (
          <p className={css.quiet}>
            {alert.considered_at === null
              ? "Nobody yet: upkeep queues the messages, within a minute."
              : "Nobody: no channel is set for this alert, or the user has no address or wants no such messages."}
          </p>
        ) : (
          <div className={css.messages}>
            {alert.notifications.map((each) => (
              <Message key={each.notification_id} notification={each} onSendAgain={() => onSendAgain(each)} />
            ))}
          </div>
        )}
      </Section>
    </div>
  );
}

function AlertFacts({
  alert,
  currency,
  waits,
}: {
  readonly alert: Alert;
  readonly currency: string;
  readonly waits: boolean;
}): ReactNode {
  const sign = severitySign(alert.severity);
  // Null for an alert that repeats by something else than a period, such as an event of Stripe.
  const period = formatPeriod(alert.period);
  return (
    <Facts
      rows={[
        [
          "Severity",
          <Tag key="s" tone={sign.tone}>
            {sign.word}
          </Tag>,
        ],
        ...(alert.needs_operator === false ? ([["For", "the user: a limit of their own"]] as const) : []),
        ["Raised", <Time key="r" at={alert.created_at} form="full" />],
        ...(alert.user_id
          ? ([
              [
                "User",
                <span key="u">
                  <UserName name={alert.display_name} id={alert.user_id} /> <Id value={alert.user_id} />
                </span>,
              ],
            ] as const)
          : []),
        ["Value", alertAmount(alert, alert.value, currency)],
        ["Threshold", alertThreshold(alert, currency)],
        ...(period === null ? [] : ([["Period", period]] as const)),
        ...(alert.alert_name
          ? ([["Alert", <SafeText key="a" text={codeWords(alert.alert_name)} length={80} />]] as const)
          : []),
        [
          "Acknowledged",
          waits ? (
            <span key="w" className={css.pending}>
              waits to be sent
            </span>
          ) : alert.acknowledged_at ? (
            <span key="k">
              <Time at={alert.acknowledged_at} />
              {alert.acknowledged_by ? (
                <>
                  {" "}
                  by <SafeText text={alert.acknowledged_by} length={60} />
                </>
              ) : null}
            </span>
          ) : (
            "not yet"
          ),
        ],
      ]}
    />
  );
}

/** One message: its recipient, its state, and why it could not be delivered. */
function Message({
  notification,
  onSendAgain,
}: {
  readonly notification: Notification;
  readonly onSendAgain: () => void;
}): ReactNode {
  const sign = notificationSign(notification);
  return (
    <div className={css.message}>
      <Tag tone={sign.tone} dot plain>
        {sign.word}
      </Tag>
      <span className={css.target}>
        <SafeText text={notificationTarget(notification)} length={120} />
        <small>{notification.recipient ? ` ${notification.channel}` : ""}</small>
      </span>
      <span className={css.quiet}>
        {notification.status === "sent" ? (
          <Time at={notification.sent_at} />
        ) : notification.status === "queued" ? (
          <>
            next try <Time at={notification.due_at} />
          </>
        ) : null}
      </span>
      {notification.status === "failed" ? (
        <Button leftSection={<RefreshIcon size={14} />} onClick={onSendAgain}>
          Send again
        </Button>
      ) : null}
      {notification.last_error && notification.status !== "sent" ? (
        <div className={css.why}>
          <SafeText text={notification.last_error} length={400} />
        </div>
      ) : null}
    </div>
  );
}
