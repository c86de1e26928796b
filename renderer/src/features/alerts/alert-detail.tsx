import { readOnlyWords, useIsReadOnly } from "../../lib/live.ts";
import { Button } from "@mantine/core";
import { type ReactNode } from "react";
import type { Alert, Notification } from "../../../../shared/contract/alerts.ts";
import { placeAddress } from "../../lib/router.ts";
import { codeWords } from "../../lib/text.ts";
import { CheckIcon, RefreshIcon } from "../../ui/icons.tsx";
import { Facts, Id, SafeText, Section, Tag, Time, UserName } from "../../ui/parts.tsx";
import {
  alertAmount,
  alertSentence,
  alertThreshold,
  notificationSign,
  notificationTarget,
  severitySign,
} from "./alert-words.ts";
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
  /** Acknowledged here, and not yet told to the project. */
  readonly waits: boolean;
  readonly onAcknowledge: () => void;
  readonly onSendAgain: (notification: Notification) => void;
}): ReactNode {
  const sign = severitySign(alert.severity);
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
      </div>
      <Facts
        rows={[
          [
            "Severity",
            <Tag key="s" tone={sign.tone}>
              {sign.word}
            </Tag>,
          ],
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
          ...(alert.period
            ? ([["Period", <SafeText key="p" text={alert.period} length={60} />]] as const)
            : []),
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

/** One message: where to, how it stands, and why it could not be delivered. */
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
        <small>{notification.channel === "slack" ? "" : ` ${notification.channel}`}</small>
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
