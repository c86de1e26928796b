import { proRata } from "../../money/index.ts";
import { CLAWED, FREE, HELD } from "../link/index.ts";
import { INQUIRY, LOST, NO_DISPUTE, OPEN, WITHDRAWN } from "../stripe-table.ts";
import type { CorrectionAction } from "../types.ts";
import type { DifferenceClass } from "../classes.ts";
import { count, type Findings } from "./findings.ts";

/** A dispute of one payment beside the lots that it is about. */
interface Disputed {
  readonly grants: readonly number[];
  /** Of Stripe's, and of the lots as the ledger has them. */
  readonly state: number;
  readonly lot: number;
  readonly disputed: number;
  readonly paid: number;
}

/** A fault and its correction. `tokens`: how many the ledger has too many (+) or too few (−). */
export interface Verdict {
  readonly class: DifferenceClass;
  readonly tokens: number;
  readonly explanation: string;
  readonly action: CorrectionAction;
  readonly words: string;
}

/** Judges a dispute beside its lots: null where the tokens followed it. */
export function createVerdicts(findings: Findings): (event: number, dispute: Disputed) => Verdict | null {
  const { links, times, stripe, ledger, money, granted } = findings;
  return verdictOn;

  function verdictOn(event: number, dispute: Disputed): Verdict | null {
    const { grants, state, lot } = dispute;
    if (state === NO_DISPUTE && lot === FREE) return null;
    if (state === WITHDRAWN || state === OPEN) return openVerdict(event, dispute);
    if (state === LOST) return lostVerdict(event, dispute);
    if (lot !== HELD && lot !== CLAWED) return null;
    // Stripe's files have no dispute. They may begin after it was opened, or end before: then nothing is reported.
    const since = links.lotDisputeAt[grants[0]];
    if (state === NO_DISPUTE && (since < times.from || since >= Math.min(times.to, times.coveredTo)))
      return null;
    return stillHeldVerdict(dispute);
  }

  function sumOf(grants: readonly number[], column: Float64Array): number {
    return grants.reduce((sum, grant) => sum + column[grant], 0);
  }

  function openVerdict(event: number, { grants, state, lot, disputed }: Disputed): Verdict | null {
    if (lot === HELD || (state === WITHDRAWN && lot === CLAWED)) return null;
    if (lot === CLAWED) {
      const clawed = sumOf(grants, links.clawed);
      return {
        class: "DISPUTE_NOT_HELD",
        tokens: -clawed,
        explanation: "The dispute is still open, but its tokens were taken for good.",
        action: "hold",
        words: `Give ${count(clawed)} tokens back and freeze them until the dispute is decided.`,
      };
    }
    let left = 0;
    // Where the ledger does not say what is left, all may be.
    for (const grant of grants)
      left += ledger.remaining[grant] < 0 ? Math.max(0, granted(grant)) : ledger.remaining[grant];
    if (left === 0) return null; // nothing to freeze
    return {
      class: "DISPUTE_NOT_HELD",
      tokens: left,
      explanation: `A dispute over ${money(disputed, stripe.currency[event])} is ${state === OPEN ? "open" : "on record: its money has left"}, and the lot's tokens can still be spent.`,
      action: "hold",
      words: `Freeze the ${count(left)} tokens that are left of the lot until the dispute is decided.`,
    };
  }

  function lostVerdict(event: number, { grants, lot, disputed, paid }: Disputed): Verdict | null {
    let total = 0;
    for (const grant of grants) total += Math.max(0, granted(grant));
    const clawed = sumOf(grants, links.clawed);
    const share = paid > 0 ? proRata(total, Math.min(disputed, paid), paid) : total;
    const due = Math.min(share, Math.max(0, total - sumOf(grants, links.reversed)));
    if (lot === CLAWED ? clawed === due : due === 0) return null;
    return {
      class: "DISPUTE_LOST_NOT_CHARGED",
      tokens: due - clawed,
      explanation: `The dispute over ${money(disputed, stripe.currency[event])} was lost: ${count(due)} tokens are to be taken for good, ${count(clawed)} were.`,
      action: "finalise_dispute",
      words:
        due >= clawed
          ? `Take ${count(due - clawed)} more tokens for good, as debt where they are spent.`
          : `Give ${count(clawed - due)} tokens back.`,
    };
  }

  function stillHeldVerdict({ grants, state, lot }: Disputed): Verdict {
    const kept = sumOf(grants, lot === CLAWED ? links.clawed : links.held);
    return {
      class: "DISPUTE_WON_NOT_RESTORED",
      tokens: -kept,
      explanation:
        state === NO_DISPUTE
          ? "The ledger holds this lot for a dispute, but Stripe's files have none for it."
          : state === INQUIRY
            ? "Stripe only asks (an inquiry): no money has left, but the tokens are held."
            : "The dispute was won, but its tokens were not given back.",
      action: "release",
      words: lot === CLAWED ? `Give ${count(kept)} tokens back.` : `Release the ${count(kept)} held tokens.`,
    };
  }
}
