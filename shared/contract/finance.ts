/** Finance: Stripe beside the ledger. Runs, cases, corrections, closed periods, events that wait for a person. */
import { z } from "zod";
import { commandId, done, failure, instant, nothing, operation, reason, userId, whole } from "./basics.ts";

/** Whole, of either sign. */
const signed = z.number().int();

const differenceId = z.string().min(1).max(512);

const money = z.object({ currency: z.string(), amount_minor: signed });

const caseStatus = z.enum([
  "open",
  "investigating",
  "proposed",
  "approved",
  "posted",
  "verified",
  "carried_forward",
  "written_off",
]);
export type CaseStatus = z.infer<typeof caseStatus>;

const caseAction = z.enum([
  "investigate",
  "assign",
  "note",
  "propose",
  "approve",
  "carry_forward",
  "write_off",
  "reopen",
  "undo",
]);
export type CaseAction = z.infer<typeof caseAction>;

/** What a person may name where the report could not: `console_case_action` adds it to the correction. */
const correctionPatch = z
  .object({
    action: z
      .enum(["grant", "reverse", "adjust", "claw_back", "restore", "relabel", "promotional"])
      .optional(),
    user_id: z.string().min(1).max(255).optional(),
    pack_id: z.string().min(1).max(255).optional(),
    tokens: signed.min(-100_000_000).max(100_000_000).optional(),
  })
  .strict();

const caseEntry = z.looseObject({
  at: instant,
  by: z.string(),
  action: z.string(),
  reason: z.string().nullish(),
  details: z.unknown().optional(),
});

export const financeCase = z.looseObject({
  difference_id: z.string(),
  class: z.string(),
  status: caseStatus,
  version: whole,
  amount_minor: signed,
  currency: z.string().nullable(),
  /**
   * Tokens that the ledger has too many (+) or too few (−). A correction moves as many the other way; once posted, this
   * is what it moved.
   */
  tokens: signed,
  /** Whom it is about: from the files, named by the proposer, or booked to; null only where nobody is known. */
  user_id: z.string().nullable(),
  occurred_at: instant.nullable(),
  opened_at: instant,
  age_days: whole,
  /** False: only listed. */
  blocks: z.boolean(),
  is_undecided: z.boolean(),
  /** Above the limit alone: a second person must approve. */
  needs_approver: z.boolean(),
  correction: z.looseObject({ action: z.string().nullish(), books: z.boolean().nullish() }),
  resolution: z.enum(["correct", "write_off"]),
  assigned_to: z.string().nullable(),
  proposed_by: z.string().nullable(),
  approved_by: z.string().nullable(),
  posted_by: z.string().nullable(),
  posted_at: instant.nullable(),
  last_run_id: z.string(),
  times_carried: whole,
  history: z.array(caseEntry),
});
export type FinanceCase = z.infer<typeof financeCase>;

const caseFilter = z
  .object({
    run_id: z.string().max(255).nullable(),
    /** True: what still keeps a period open. */
    undecided: z.boolean().nullable(),
    status: z.array(caseStatus).max(8).nullable(),
    class: z.string().max(100).nullable(),
    /** Empty: nobody. */
    assigned_to: z.string().max(255).nullable(),
    older_than_days: z.number().int().min(0).max(36_500).nullable(),
    /** Part of an id, a name or the explanation. */
    text: z.string().max(200).nullable(),
    /** Null: by id. */
    sort: z.enum(["money", "tokens", "age", "class"]).nullable(),
    descending: z.boolean(),
  })
  .strict();
export type CaseFilter = z.infer<typeof caseFilter>;

export const casePage = z.looseObject({
  /** By status and by class, of the run or the whole project, whatever is filtered. */
  counts: z.record(z.string(), whole),
  classes: z.record(z.string(), whole),
  undecided: whole,
  assignees: z.array(z.string()),
  /** Of what fits the filter. */
  total: whole,
  tokens: whole,
  users: whole,
  money: z.array(money),
  cases: z.array(financeCase),
});

export const keptRun = z.looseObject({
  run_id: z.string(),
  period_from: instant,
  period_to: instant,
  tied_out: z.boolean(),
  is_complete: z.boolean(),
  is_closed: z.boolean(),
  created_at: instant,
  created_by: z.string(),
  ledger_read_at: instant,
  file_names: z.array(z.string().nullable()),
  differences: whole,
  undecided: whole,
});
export type KeptRun = z.infer<typeof keptRun>;

export const keepOutcome = z.looseObject({
  run_id: z.string(),
  kept: whole,
  is_complete: z.boolean(),
  /** Posted and gone; open and gone; posted and still there, or more than was written off; not found because this run read fewer files. */
  verified: whole,
  gone: whole,
  reopened: whole,
  not_looked_for: whole,
});

export const runComparison = z.looseObject({
  counts: z.object({ new: whole, gone: whole, changed: whole, same: whole }),
  rows: z.array(
    z.looseObject({
      difference_id: z.string(),
      class: z.string(),
      currency: z.string().nullable(),
      how: z.enum(["new", "gone", "changed", "same"]),
      amount_before: signed.nullable(),
      amount_now: signed.nullable(),
      tokens_before: signed.nullable(),
      tokens_now: signed.nullable(),
      status: caseStatus.nullable(),
    }),
  ),
});
export type RunComparison = z.infer<typeof runComparison>;

export const effect = z.looseObject({
  type: z.string(),
  user_id: z.string().nullable(),
  tokens: signed,
});

const balances = z.looseObject({
  total: signed.optional(),
  subscription: signed.optional(),
  purchased: signed.optional(),
  promotional: signed.optional(),
  debt: signed.optional(),
});

const lot = z.looseObject({
  kind: z.string(),
  granted: signed,
  remaining: signed,
  frozen: signed,
  clawed_back: signed,
  amount_minor: signed.nullable(),
  currency: z.string().nullable(),
});

/** What posting a correction would do, done and undone in the project. */
export const postPreview = z.looseObject({
  difference_id: z.string(),
  /** Already posted: nothing would happen. */
  dry_run: z.boolean(),
  effects: z.array(effect),
  needs_approver: z.boolean().optional(),
  why_approver: z.string().nullish(),
  accounts: z
    .array(
      z.looseObject({
        user_id: z.string(),
        name: z.string().nullable(),
        before: balances,
        after: balances,
        entries: z.array(
          z.looseObject({
            type: z.string(),
            amount: signed,
            previous_balance: signed,
            new_balance: signed,
            debt_after: signed,
            description: z.string().nullable(),
          }),
        ),
        lots: z.array(z.object({ lot_id: whole, before: lot.nullable(), after: lot })),
      }),
    )
    .optional(),
});
export type PostPreview = z.infer<typeof postPreview>;

/** The blast radius of an action on many cases. */
export const bulkPreview = z.looseObject({
  action: z.string(),
  included: z.array(z.object({ difference_id: z.string(), version: whole })),
  excluded: z.array(z.object({ difference_id: z.string(), code: z.string(), message: z.string() })),
  /** Of those included: write-offs that another person must approve first. */
  waits_for_approval: whole,
  users: whole,
  tokens: whole,
  tokens_added: whole,
  tokens_taken: whole,
  money: z.array(money),
});
export type BulkPreview = z.infer<typeof bulkPreview>;

export const posted = z.looseObject({
  difference_id: z.string(),
  status: caseStatus,
  effects: z.array(effect),
});

export const closing = z.looseObject({
  run: keptRun,
  can_close: z.boolean(),
  checks: z.array(
    z.looseObject({
      check: z.string(),
      ok: z.boolean(),
      /** False: for information only. */
      blocks: z.boolean(),
      count: whole,
      sentence: z.string(),
    }),
  ),
  decided: z.array(
    z.looseObject({
      status: caseStatus,
      currency: z.string().nullable(),
      count: whole,
      amount_minor: whole,
      tokens: whole,
    }),
  ),
});
export type Closing = z.infer<typeof closing>;

export const closedNow = z.looseObject({
  period_from: instant,
  period_to: instant,
  run_id: z.string(),
  seal: z.string(),
  closed_at: instant,
  carried_over: whole,
});

export const closedPeriod = z.looseObject({
  period_from: instant,
  period_to: instant,
  run_id: z.string(),
  seal: z.string(),
  seal_before: z.string().nullable(),
  is_intact: z.boolean(),
  cases: whole,
  closed_at: instant,
  closed_by: z.string(),
  sign_off: z.string().nullable(),
});
export type ClosedPeriod = z.infer<typeof closedPeriod>;

/** A Stripe event that waits for a person. */
export const stripeEvent = z.looseObject({
  event_id: z.string(),
  event_type: z.string(),
  reason: z.string().nullable(),
  event_created_at: instant.nullable(),
  received_at: instant,
  attempts: whole,
  payload: z.unknown(),
  charge_id: z.string().nullable(),
  payment_intent_id: z.string().nullable(),
});
export type StripeEvent = z.infer<typeof stripeEvent>;

export const packPrice = z.looseObject({
  pack_id: z.string(),
  tokens: whole,
  price_minor: whole,
  currency: z.string(),
  valid_from: instant,
});

export const financeCounts = z.looseObject({
  keeps_runs: z.boolean(),
  undecided: whole,
  waiting_for_approval: whole,
  stripe_events: whole,
  closed_periods: whole,
  approval_above_tokens: whole,
  approval_above_minor: whole,
});
export type FinanceCounts = z.infer<typeof financeCounts>;

export const financeOperations = {
  "finance.counts": operation(nothing, financeCounts),
  /** Sends some pages of a finished run; called again until `is_complete`. Goes on where it stopped. */
  "finance.keep_run": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    keepOutcome.extend({ total: whole }),
  ),
  "finance.kept_runs": operation(nothing, z.object({ runs: z.array(keptRun), as_of: instant.nullable() })),
  "finance.kept_run": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    z.object({ run: keptRun, report: z.unknown(), as_of: instant.nullable() }),
  ),
  "finance.compare_runs": operation(
    z.object({ run_id: z.string().max(255), other_run_id: z.string().max(255) }).strict(),
    runComparison,
  ),
  /** In the order of the filter's sort; `after` is the last id of the page before. */
  "finance.cases": operation(
    z
      .object({
        filter: caseFilter,
        after: differenceId.nullable(),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    casePage.extend({ as_of: instant.nullable() }),
  ),
  /** With both sides, as the last run found them (Difference of shared/governance/reconciliation). */
  "finance.case": operation(
    z.object({ difference_id: differenceId }).strict(),
    z.object({ case: financeCase, difference: z.unknown(), as_of: instant.nullable() }),
  ),
  /** All of them or none. `versions` are those that were looked at: a case changed since is refused. */
  "finance.act": operation(
    z
      .object({
        command_id: commandId,
        difference_ids: z.array(differenceId).min(1).max(1000),
        versions: z.record(z.string(), whole),
        action: caseAction,
        reason: z.string().trim().max(2000).nullable(),
        assigned_to: z.string().trim().max(255).nullish(),
        correction: correctionPatch.nullish(),
      })
      .strict(),
    z.looseObject({ cases: z.array(financeCase) }),
  ),
  /** What an action on many cases would touch. */
  "finance.preview_act": operation(
    z
      .object({
        difference_ids: z.array(differenceId).min(1).max(1000),
        action: z.enum([...caseAction.options, "post"]),
      })
      .strict(),
    bulkPreview,
  ),
  "finance.preview_post": operation(z.object({ difference_id: differenceId }).strict(), postPreview),
  /** Each by itself and once; where the connection breaks, `unsent` says how many were not tried. */
  "finance.post": operation(
    z
      .object({
        difference_ids: z.array(differenceId).min(1).max(1000),
        versions: z.record(z.string(), whole),
      })
      .strict(),
    z.object({
      posted: z.array(posted),
      refused: z.array(z.object({ difference_id: z.string(), failure })),
      unsent: whole,
    }),
  ),
  "finance.closing": operation(z.object({ run_id: z.string().max(255) }).strict(), closing),
  "finance.close_period": operation(
    z
      .object({
        command_id: commandId,
        run_id: z.string().max(255),
        sign_off: z.string().trim().min(3, "Sign off in at least 3 letters.").max(2000),
      })
      .strict(),
    closedNow,
  ),
  "finance.closed_periods": operation(
    nothing,
    z.object({ periods: z.array(closedPeriod), as_of: instant.nullable() }),
  ),
  /** The sealed text itself; `is_right`: this console worked out the same SHA-256. */
  "finance.sealed_period": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    z.object({ file_name: z.string(), text: z.string(), seal: z.string(), is_right: z.boolean() }),
  ),
  "finance.stripe_events": operation(
    nothing,
    z.object({
      waiting: whole,
      events: z.array(stripeEvent),
      packs: z.array(packPrice),
      as_of: instant.nullable(),
    }),
  ),
  /** Lets a quarantined event through; what the event does not say is named here. */
  "finance.release_event": operation(
    z
      .object({
        command_id: commandId,
        event_id: z.string().min(1).max(255),
        reason,
        user_id: userId.nullable(),
        pack_id: z.string().min(1).max(255).nullable(),
        tokens: z.number().int().min(1).max(100_000_000).nullable(),
      })
      .strict(),
    z.looseObject({ status: z.string(), effects: z.array(effect) }),
  ),
  "finance.dismiss_event": operation(
    z.object({ command_id: commandId, event_id: z.string().min(1).max(255), reason }).strict(),
    done,
  ),
} as const;
