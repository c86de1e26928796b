import { CHARGE } from "../stripe-table.ts";
import type { Draft, Findings } from "./findings.ts";

const HOUR = 3600;

/** Pass 7: customer, currency and exact amount within 72 hours. Suggested only, and never where it is not the only one. */
export function suggest(findings: Findings): void {
  const { stripe, ledger, drafts, text, paymentOf } = findings;
  const payments = drafts.filter(
    (draft) =>
      draft.record < 0 &&
      stripe.kind[draft.event] === CHARGE &&
      (draft.class === "PAID_NOT_GRANTED" || draft.class === "SUB_PERIOD_GAP" || draft.class === "TIMING"),
  );
  const grants = drafts.filter(
    (draft) => draft.event < 0 && (draft.class === "GRANTED_NOT_PAID" || draft.class === "TIMING"),
  );
  if (payments.length === 0 || grants.length === 0) return;
  const byKey = new Map<string, Draft[]>();
  for (const draft of grants)
    for (const who of new Set([text(ledger.customer[draft.record]), text(ledger.user[draft.record])])) {
      if (who === null || ledger.amount[draft.record] < 0) continue;
      const key = `${who}/${ledger.currency[draft.record]}/${ledger.amount[draft.record]}`;
      const list = byKey.get(key);
      if (list) list.push(draft);
      else byKey.set(key, [draft]);
    }
  const candidatesOf = new Map<Draft, Set<Draft>>();
  const claimedBy = new Map<Draft, number>();
  for (const draft of payments) {
    const found = new Set<Draft>();
    for (const who of new Set([
      text(stripe.customer[draft.event]),
      text(stripe.user[draft.event]),
      text(stripe.reference[draft.event]),
    ])) {
      if (who === null) continue;
      const bucket = byKey.get(`${who}/${stripe.currency[draft.event]}/${stripe.amount[draft.event]}`) ?? [];
      // So many of one person, currency and amount: none of them is the only one.
      if (bucket.length > 1000) continue;
      for (const grant of bucket)
        if (Math.abs(ledger.created[grant.record] - stripe.created[draft.event]) <= 72 * HOUR)
          found.add(grant);
    }
    candidatesOf.set(draft, found);
    for (const grant of found) claimedBy.set(grant, (claimedBy.get(grant) ?? 0) + 1);
  }
  for (const [draft, found] of candidatesOf) {
    const [grant] = found;
    if (found.size !== 1 || !grant || claimedBy.get(grant) !== 1) continue;
    draft.suggestion = {
      draft: grant,
      words: `Entry ${ledger.transaction[grant.record]} has the same customer, currency and amount within 72 hours. Check before you link them.`,
    };
    grant.suggestion = {
      draft,
      words: `${paymentOf(draft.event)} has the same customer, currency and amount within 72 hours. Check before you link them.`,
    };
  }
}
