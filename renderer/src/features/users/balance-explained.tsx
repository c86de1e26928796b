import type { ReactNode } from "react";
import type { BalanceExplained as Explained } from "../../../../shared/contract/history.ts";
import { useCall } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { counted } from "../../lib/text.ts";
import { Time } from "../../ui/parts.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import { useState } from "react";
import css from "./users.module.css";

const words: Readonly<Record<string, string>> = {
  purchase: "bought",
  subscription_grant: "granted by the plan",
  bonus: "given as a bonus",
  usage: "used by calls",
  refund: "taken back for refunds",
  adjustment: "adjusted by hand",
  reversal: "frozen, taken back or given back for disputes",
  expiry: "expired",
  debt_recovery: "paid for debt",
};

/** Why the balance is what it is: the sum of the ledger, type by type. Asked for when it is opened. */
export function BalanceExplained({
  userId,
  zone,
}: {
  readonly userId: string;
  readonly zone: string;
}): ReactNode {
  const [isOpen, setOpen] = useState(false);
  return (
    <details className={css.explained} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Explain this balance</summary>
      {isOpen ? <Explanation userId={userId} zone={zone} /> : null}
    </details>
  );
}

function Explanation({ userId, zone }: { readonly userId: string; readonly zone: string }): ReactNode {
  const query = useCall("users.explain_balance", { user_id: userId });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={4} />}>
      {(balance) => (
        <>
          <table className={css.sums} aria-label="What the balance is made of">
            <tbody>
              {balance.lines.map((line) => (
                <tr key={line.transaction_type}>
                  <td>{formatChange(line.tokens)}</td>
                  <td>
                    {words[line.transaction_type] ?? line.transaction_type}
                    <small> {counted(line.entries, "entry", "entries")}</small>
                  </td>
                </tr>
              ))}
              <tr>
                <td>
                  <b>{formatTokens(balance.total)}</b>
                </td>
                <td>
                  <b>is the balance</b> <small>{parts(balance)}</small>
                </td>
              </tr>
            </tbody>
          </table>
          {balance.next_expiry ? (
            <p className={css.explainedLine}>
              {formatTokens(balance.next_expiry.tokens)} of them expire next,{" "}
              <Time at={balance.next_expiry.at} form="full" zone={zone} />.
            </p>
          ) : null}
        </>
      )}
    </QueryView>
  );
}

/** "of the plan 10, bought 20; 5 held by open calls, 3 owed". */
function parts(balance: Explained): string {
  const kinds = [
    ["of the plan", balance.subscription],
    ["bought", balance.purchased],
    ["promotional", balance.promotional],
  ] as const;
  const beside = [
    [balance.reserved, "held by open calls"],
    [balance.frozen, "frozen by a dispute and in no balance"],
    [balance.debt, "owed"],
  ] as const;
  return [
    kinds
      .filter(([, tokens]) => tokens !== 0)
      .map(([name, tokens]) => `${name} ${formatTokens(tokens)}`)
      .join(", "),
    beside
      .filter(([tokens]) => tokens !== 0)
      .map(([tokens, name]) => `${formatTokens(tokens)} ${name}`)
      .join(", "),
  ]
    .filter((text) => text !== "")
    .join("; ");
}
