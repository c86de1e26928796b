/**
 * Corrections: what an operator changes of an account's tokens, plan or calls. They need a connection: each is previewed,
 * made on the account as it was seen, and can be found by its command id when the answer is lost.
 *
 * A kind is described once here; the form, the palette and the lists follow from it.
 */
import { z } from "zod";
import { commandId, decision, instant, operation, reason, tokens, userId, whole } from "./basics.ts";
import { accountState, balance, limits } from "./users.ts";

const positive = tokens.min(1, "At least 1 token.").max(Number.MAX_SAFE_INTEGER);
const counted = tokens.min(0, "0 or more.").max(Number.MAX_SAFE_INTEGER);
const requestId = z.string().min(1, "Name the call.").max(255);

const lotKind = z.enum(["promotional", "purchased", "subscription"]);

export const correction = z.discriminatedUnion("kind", [
  z
    .object({
      kind: z.literal("give_tokens"),
      tokens: positive,
      lot_kind: lotKind,
      /** null: the tokens never expire. */
      expires_at: instant.nullable(),
    })
    .strict(),
  z.object({ kind: z.literal("take_tokens"), tokens: positive }).strict(),
  z.object({ kind: z.literal("refund_call"), request_id: requestId }).strict(),
  z
    .object({
      kind: z.literal("end_hold"),
      request_id: requestId,
      action: z.enum(["settle", "release"]),
      /** What the call used; null for a settlement that waits: as it was reported. */
      input_tokens: counted.nullable(),
      output_tokens: counted.nullable(),
    })
    .strict(),
  z
    .object({
      kind: z.literal("change_plan"),
      plan_id: z.string().min(1, "Choose a plan.").max(255),
      /** `next_period`: when the user's next month begins. */
      when: z.enum(["now", "next_period"]).optional(),
    })
    .strict(),
  z
    .object({
      kind: z.literal("raise_limit"),
      daily_limit: positive.nullable(),
      monthly_limit: positive.nullable(),
      /** The limits are the plan's again by themselves then. */
      until: instant,
    })
    .strict(),
]);
export type Correction = z.infer<typeof correction>;
export type CorrectionKind = Correction["kind"];

interface Words {
  /** On the button and the form. */
  readonly title: string;
  readonly key?: string;
  readonly done: string;
  readonly failed: string;
  readonly reasons: readonly string[];
  readonly isDangerous?: boolean;
}

export const correctionWords: Readonly<Record<CorrectionKind, Words>> = {
  give_tokens: {
    title: "Give tokens",
    key: "t",
    done: "Tokens given",
    failed: "No tokens given",
    reasons: ["Goodwill", "Paid but not credited", "Tokens lost to a fault of ours"],
  },
  take_tokens: {
    title: "Take tokens",
    done: "Tokens taken",
    failed: "No tokens taken",
    reasons: ["Given by mistake", "Credited twice", "Asked by finance"],
    isDangerous: true,
  },
  refund_call: {
    title: "Refund this call",
    done: "Call refunded",
    failed: "Call not refunded",
    reasons: ["The answer was unusable", "The call failed on our side", "Goodwill"],
  },
  end_hold: {
    title: "End this hold",
    done: "Hold ended",
    failed: "Hold not ended",
    reasons: ["The call never ran", "Usage confirmed by the provider", "Usage reported wrongly"],
  },
  change_plan: {
    title: "Move to plan",
    key: "p",
    done: "Moved to the plan",
    failed: "Plan not changed",
    reasons: ["Asked by the user", "Agreed with sales", "Put right after a failed payment"],
  },
  raise_limit: {
    title: "Raise a limit",
    key: "m",
    done: "Limit raised",
    failed: "Limit not raised",
    reasons: ["A deadline of theirs", "Goodwill", "Until they have upgraded"],
  },
};

const snapshot = z.looseObject({
  plan_id: z.string(),
  plan_name: z.string(),
  balance,
  limits,
  is_blocked: z.boolean().nullish(),
  is_flagged: z.boolean().nullish(),
  raised: z.looseObject({ until: instant }).nullish(),
  next_plan: z.looseObject({ plan_id: z.string(), name: z.string() }).nullish(),
});
export type Snapshot = z.infer<typeof snapshot>;

/** What an act does, exactly: the account before and after, ledger entries, and the lots that change. */
const effects = z.looseObject({
  before: snapshot,
  after: snapshot,
  entries: z.array(
    z.looseObject({
      type: z.string(),
      amount: tokens,
      previous_balance: tokens,
      new_balance: tokens,
      debt_after: tokens,
      description: z.string().nullable(),
    }),
  ),
  lots: z.array(
    z.looseObject({
      lot_id: whole,
      before: z.looseObject({ kind: z.string(), remaining: tokens }).nullable(),
      after: z.looseObject({ kind: z.string(), remaining: tokens }),
    }),
  ),
  /** The mails that the user gets of it, in their language. */
  user_messages: z.array(z.string()).optional(),
});
export type Effects = z.infer<typeof effects>;

export const preview = z.looseObject({
  effects,
  /** Why a second person must approve it; null where one is enough. */
  why: z.string().nullable(),
  /** The account's version that it was worked out on. */
  version: whole,
});
export type Preview = z.infer<typeof preview>;

const accountAct = z.looseObject({
  act_id: whole,
  command_id: z.string(),
  user_id: z.string(),
  display_name: z.string().nullable(),
  kind: z.string(),
  fields: z.record(z.string(), z.unknown()),
  reason: z.string(),
  operator: z.string(),
  status: z.enum(["proposed", "done", "rejected", "undone"]),
  why: z.string().nullable(),
  /** Empty for a note. */
  effects: effects.partial(),
  created_at: instant,
  done_at: instant.nullable(),
  decided_by: z.string().nullable(),
  undoes: whole.nullable(),
  undone_by: whole.nullable(),
  can_undo: z.boolean(),
});
export type AccountAct = z.infer<typeof accountAct>;

/** What a decided call would be answered now. */
export const tried = z.looseObject({
  decision,
  reason: z.string().nullable(),
  message: z.string().nullable(),
  balance,
  limits,
  retry_after_seconds: whole.nullable(),
  estimated_tokens: tokens,
  /** The message is not kept: rules that read it were not asked. */
  had_message: z.boolean(),
});
export type Tried = z.infer<typeof tried>;

const outcome = z.object({ act: accountAct, account: accountState });
const actId = whole;

export const correctionsOperations = {
  "users.preview": operation(z.object({ user_id: userId, correction }).strict(), preview),
  "users.correct": operation(
    z
      .object({
        command_id: commandId,
        user_id: userId,
        correction,
        reason,
        /** The account's version that the preview was worked out on. */
        expected_version: whole.nullable(),
      })
      .strict(),
    outcome,
  ),
  "users.preview_undo": operation(z.object({ act_id: actId }).strict(), preview),
  "users.undo": operation(z.object({ command_id: commandId, act_id: actId, reason }).strict(), outcome),
  "users.preview_approval": operation(z.object({ act_id: actId }).strict(), preview),
  /** A second person approves what was proposed, or either of both rejects it. */
  "users.decide": operation(
    z
      .object({ command_id: commandId, act_id: actId, decision: z.enum(["approve", "reject"]), reason })
      .strict(),
    outcome,
  ),
  "users.try_decision": operation(z.object({ decision_id: whole }).strict(), tried),
  "users.acts": operation(
    z
      .object({
        /** Only of the operator of this console. */
        mine: z.boolean(),
        user_id: userId.nullable(),
        status: z.enum(["proposed", "done", "rejected", "undone"]).nullable(),
        before_id: whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.looseObject({ acts: z.array(accountAct), next_before_id: whole.nullable(), operator: z.string() }),
  ),
} as const;
