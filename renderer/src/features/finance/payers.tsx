/** Who may have paid what names nobody: suggested by customer, order, reference or e-mail; one click takes one. */
import { Button } from "@mantine/core";
import type { ReactNode } from "react";
import type { Payer } from "../../../../shared/contract/payments.ts";
import { useCall } from "../../lib/console.tsx";
import { cleanText, clip } from "../../lib/text.ts";
import { UserName } from "../../ui/parts.tsx";
import css from "./finance.module.css";

const why: Readonly<Record<Payer["why"], string>> = {
  customer: "the same customer at Stripe",
  order: "the same order",
  reference: "named by the product",
  email: "the same e-mail",
};

export function PayerSuggestions({
  differenceId = null,
  eventId = null,
  taken,
  onTake,
}: {
  readonly differenceId?: string | null;
  readonly eventId?: string | null;
  readonly taken: string | null;
  readonly onTake: (userId: string) => void;
}): ReactNode {
  const query = useCall(
    "finance.suggest_payers",
    { difference_id: differenceId, event_id: eventId },
    { staleMs: 60_000 },
  );
  const payers = query.data?.payers ?? [];
  if (query.isPending || query.error) return null;
  if (payers.length === 0)
    return (
      <span className={css.quiet}>Nobody is suggested: no customer, order or e-mail is known here.</span>
    );
  return (
    <div className={css.payers} role="group" aria-label="Who may have paid">
      {payers.slice(0, 5).map((each) => (
        <div key={each.user_id}>
          <span>
            <UserName name={each.display_name} id={each.user_id} />{" "}
            <small title={cleanText(each.value)}>
              {why[each.why]}: {clip(cleanText(each.value), 32)}
            </small>
          </span>
          <Button size="compact-sm" disabled={taken === each.user_id} onClick={() => onTake(each.user_id)}>
            {taken === each.user_id ? "Taken" : "Take"}
          </Button>
        </div>
      ))}
    </div>
  );
}
