import { CHARGE } from "../stripe-side.ts";
import type { Draft, Findings } from "./findings.ts";

const HOUR = 3600;

/** Pass 7: customer, currency and exact amount within 72 hours. Suggested only, and never where it is not the only one. */
export function suggest(findings: Findings): void {
  const { s, l, drafts, text, paymentOf } = findings;
  const payments = drafts.filter(
    (d) =>
      d.record < 0 &&
      s.kind[d.event] === CHARGE &&
      (d.class === "PAID_NOT_GRANTED" || d.class === "SUB_PERIOD_GAP" || d.class === "TIMING"),
  );
  const grants = drafts.filter(
    (d) => d.event < 0 && (d.class === "GRANTED_NOT_PAID" || d.class === "TIMING"),
  );
  if (payments.length === 0 || grants.length === 0) return;
  const byKey = new Map<string, Draft[]>();
  for (const d of grants)
    for (const who of new Set([text(l.customer[d.record]), text(l.user[d.record])])) {
      if (who === null || l.amount[d.record] < 0) continue;
      const key = `${who}/${l.currency[d.record]}/${l.amount[d.record]}`;
      const list = byKey.get(key);
      if (list) list.push(d);
      else byKey.set(key, [d]);
    }
  const candidatesOf = new Map<Draft, Set<Draft>>();
  const claimedBy = new Map<Draft, number>();
  for (const d of payments) {
    const found = new Set<Draft>();
    for (const who of new Set([
      text(s.customer[d.event]),
      text(s.user[d.event]),
      text(s.reference[d.event]),
    ])) {
      if (who === null) continue;
      const bucket = byKey.get(`${who}/${s.currency[d.event]}/${s.amount[d.event]}`) ?? [];
      // So many of one person, currency and amount: none of them is the only one.
      if (bucket.length > 1000) continue;
      for (const g of bucket)
        if (Math.abs(l.created[g.record] - s.created[d.event]) <= 72 * HOUR) found.add(g);
    }
    candidatesOf.set(d, found);
    for (const g of found) claimedBy.set(g, (claimedBy.get(g) ?? 0) + 1);
  }
  for (const [d, found] of candidatesOf) {
    const [g] = found;
    if (found.size !== 1 || !g || claimedBy.get(g) !== 1) continue;
    d.suggestion = {
      draft: g,
      words: `Entry ${l.transaction[g.record]} has the same customer, currency and amount within 72 hours. Check before you link them.`,
    };
    g.suggestion = {
      draft: d,
      words: `${paymentOf(d.event)} has the same customer, currency and amount within 72 hours. Check before you link them.`,
    };
  }
}
