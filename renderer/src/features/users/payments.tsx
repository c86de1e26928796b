/** What a user paid: amount, tokens, what was refunded or disputed, and the same payment at Stripe. */
import type { ReactNode } from "react";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import type { Payment } from "../../../../shared/contract/users.ts";
import { formatMinorMoney, formatTokens } from "../../lib/format.ts";
import { cleanText, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Id, Tag, Time, Tokens } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import type { Tone } from "../../ui/theme.ts";
import css from "./users.module.css";

export const money = (minor: number, currency: string): string =>
  formatMinorMoney(minor, currency, currencyExponent(currency));

/** The words of how a payment stands, the gravest first; empty where it was simply paid. */
export function paymentSigns(payment: Payment): readonly { readonly tone: Tone; readonly word: string }[] {
  const signs: { tone: Tone; word: string }[] = [];
  const states = new Set(payment.lots.map((lot) => lot.dispute_state));
  const frozen = payment.lots.reduce((sum, lot) => sum + lot.frozen, 0);
  if (states.has("clawed")) signs.push({ tone: "red", word: "dispute lost" });
  if (states.has("held"))
    signs.push({ tone: "amber", word: `disputed${frozen > 0 ? `, ${formatTokens(frozen)} held` : ""}` });
  if (states.has("released")) signs.push({ tone: "green", word: "dispute won" });
  for (const dispute of payment.lots.length === 0 ? payment.disputes : [])
    signs.push({ tone: "amber", word: `dispute ${codeWords(dispute.status)}` });
  if (payment.refunded_minor > 0 && payment.currency)
    signs.push({
      tone: "grey",
      word:
        payment.refunded_minor >= (payment.amount_minor ?? 0)
          ? "refunded"
          : `${money(payment.refunded_minor, payment.currency)} refunded`,
    });
  if (payment.amount_minor === null) signs.push({ tone: "amber", word: "not credited" });
  return signs;
}

/** The payment's page at Stripe. */
export function stripeLink(
  payment: Pick<Payment, "payment_intent_id" | "charge_id" | "invoice_id" | "livemode">,
): string | null {
  const id = payment.payment_intent_id ?? payment.charge_id;
  const test = payment.livemode === false ? "test/" : "";
  if (id) return `https://dashboard.stripe.com/${test}payments/${encodeURIComponent(id)}`;
  return payment.invoice_id
    ? `https://dashboard.stripe.com/${test}invoices/${encodeURIComponent(payment.invoice_id)}`
    : null;
}

const columns: readonly Column<Payment>[] = [
  { id: "at", header: "Paid", width: 92, cell: (row) => <Time at={row.paid_at} form="short" /> },
  {
    id: "amount",
    header: "Amount",
    width: 80,
    align: "right",
    cell: (row) =>
      row.amount_minor !== null && row.currency ? money(row.amount_minor, row.currency) : <>—</>,
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 80,
    align: "right",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.tokens, 0)} />,
  },
  {
    id: "left",
    header: "Left",
    width: 80,
    align: "right",
    hint: "Of these tokens, not spent and not taken back",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.remaining, 0)} />,
  },
  {
    id: "for",
    header: "For",
    width: 70,
    cell: (row) => {
      const pack = row.lots.find((lot) => lot.pack_id)?.pack_id;
      return pack ? cleanText(pack) : row["subscription_id"] ? "subscription" : null;
    },
  },
  {
    id: "state",
    header: "State",
    width: 120,
    grow: 1,
    cell: (row) => (
      <span className={css.tags}>
        {paymentSigns(row).map((sign) => (
          <Tag key={sign.word} tone={sign.tone}>
            {sign.word}
          </Tag>
        ))}
      </span>
    ),
  },
  {
    id: "charge",
    header: "Charge",
    width: 130,
    cell: (row) => {
      const id = row.charge_id ?? row.payment_intent_id ?? row.invoice_id;
      return id ? <Id value={id} head={8} tail={4} /> : null;
    },
  },
  {
    id: "stripe",
    header: "",
    width: 50,
    cell: (row) => {
      const link = stripeLink(row);
      return link ? (
        <a href={link} target="_blank" rel="noreferrer noopener" aria-label="Open this payment at Stripe">
          Stripe
        </a>
      ) : null;
    },
  },
];

export function Payments({ payments }: { readonly payments: readonly Payment[] }): ReactNode {
  return (
    <PlainTable
      label="Payments, newest first"
      columns={columns}
      rows={payments}
      rowKey={(row) => String(row.payment_id)}
      empty="This user has paid for nothing through Stripe."
    />
  );
}
