/** The newest call of a user, where it was stopped: why, whether it would pass now, and the words to send. */
import type { ReactNode } from "react";
import type { Receipt } from "../../../../shared/contract/watch.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall } from "../../lib/console.tsx";
import { placeAddress } from "../../lib/router.ts";
import { Note, Time } from "../../ui/parts.tsx";
import { ReceiptCopies, receiptSentence, triedSentence, useTried } from "../../ui/receipt.tsx";
import css from "./users.module.css";

export function LastStop({ userId }: { readonly userId: string }): ReactNode {
  const newest = useCall(
    "users.decisions",
    { user_id: userId, before_id: null, limit: 1 },
    { refetchMs: 5000 },
  ).data?.decisions[0];
  const isStopped = newest?.decision === "block";
  const receipt = useCall(
    "watch.explain",
    { decision_id: newest?.decision_id ?? 0 },
    { enabled: isStopped, staleMs: 30_000 },
  );
  return isStopped && receipt.data ? <Stop receipt={receipt.data} /> : null;
}

function Stop({ receipt }: { readonly receipt: Receipt }): ReactNode {
  const now = useNow(1000);
  const tried = useTried(receipt).data;
  const address = placeAddress(["users", receipt.user_id, "decisions", String(receipt.decision_id)]);
  return (
    <Note tone={tried && tried.decision !== "block" ? "green" : "red"}>
      <b>The last call was stopped</b> <Time at={receipt.at} zone={receipt.timezone} />.{" "}
      {receiptSentence(receipt, now)} {tried ? triedSentence(tried) : null}
      <span className={css.stopActs}>
        <ReceiptCopies receipt={receipt} />
        <a href={`#${address}`}>The whole receipt</a>
      </span>
    </Note>
  );
}
