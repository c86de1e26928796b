/**
 * One act on many users: whom it hits and what it costs, shown before; then in steps that the console sends and
 * the database keeps, with a result for each user, and an undo of the whole.
 */
import { z } from "zod";
import { acts } from "./acts.ts";
import { commandId, instant, operation, reason, tokens, userId, whole } from "./basics.ts";
import { correction, correctionWords } from "./corrections.ts";
import { accountFilter } from "./users.ts";

/** As many users as go into one act. */
export const mostInBulk = 20_000;

/** What many users can get at once, by what it changes. */
export const bulkGroups = [
  { name: "Tokens", kinds: ["give_tokens", "take_tokens"] },
  { name: "Plan and limits", kinds: ["change_plan", "raise_limit"] },
  { name: "Standing", kinds: ["flag_user", "unflag_user", "block_user", "unblock_user"] },
  { name: "Record", kinds: ["note"] },
] as const;
export type BulkKind = (typeof bulkGroups)[number]["kinds"][number];

/** The acts that move no tokens: what they ask for beside the reason. */
const standing = [
  z.object({ kind: z.literal("flag_user") }).strict(),
  z.object({ kind: z.literal("unflag_user") }).strict(),
  z
    .object({
      kind: z.literal("block_user"),
      /** null: until someone unblocks. */
      until: instant.nullable(),
    })
    .strict(),
  z.object({ kind: z.literal("unblock_user") }).strict(),
  z.object({ kind: z.literal("note") }).strict(),
] as const;
export const manyAct = z.union([correction, z.discriminatedUnion("kind", standing)]);
export type ManyCorrection = z.infer<typeof manyAct>;

const wordsOf = (name: "flag_user" | "unflag_user" | "block_user" | "unblock_user") => ({
  title: acts[name].words.title,
  reasons: acts[name].words.reasons ?? [],
  isDangerous: name === "block_user",
});
/** On the button and in the lists, with the usual reasons. */
export const bulkWords: Readonly<
  Record<
    BulkKind,
    { readonly title: string; readonly reasons: readonly string[]; readonly isDangerous?: boolean }
  >
> = {
  ...correctionWords,
  flag_user: wordsOf("flag_user"),
  unflag_user: wordsOf("unflag_user"),
  block_user: wordsOf("block_user"),
  unblock_user: wordsOf("unblock_user"),
  note: { title: acts.note_user.words.title, reasons: [] },
};
/** What an act is called, also one that a newer console made. */
export const bulkTitle = (kind: string): string =>
  Object.hasOwn(bulkWords, kind) ? bulkWords[kind as BulkKind].title : kind.replaceAll("_", " ");

/** Whether it moves tokens: only then has its cost a count of tokens. */
export const movesTokens = (kind: string): boolean =>
  kind === "give_tokens" || kind === "take_tokens" || kind === "change_plan";

const plan = z.looseObject({
  accounts: whole,
  /** How many of them change, are refused, and are gone. */
  changes: whole,
  refused: whole,
  missing: whole,
  missing_ids: z.array(z.string()),
  /** Below zero where they are taken. */
  tokens,
  debt_paid: tokens,
  by_refusal: z.array(z.looseObject({ hint: z.string(), accounts: whole })),
  by_plan: z.array(z.looseObject({ plan_id: z.string(), name: z.string(), accounts: whole, tokens })),
  /** Of those that change: blocked now, flagged now, with a payment, with calls in flight. */
  blocked: whole,
  flagged: whole.nullish(),
  paying: whole.nullish(),
  holding: whole.nullish(),
  /** Tokens that they used this month, together. */
  used_this_month: tokens.nullish(),
  why: z.string().nullable(),
});

export const manyPreview = plan.extend({
  /** The first hundred. */
  shown: z.array(
    z.looseObject({
      user_id: z.string(),
      display_name: z.string().nullable(),
      email: z.string().nullable(),
      plan_id: z.string(),
      before: tokens,
      after: tokens,
      debt_paid: tokens,
      hint: z.string().nullable(),
      is_flagged: z.boolean(),
      is_blocked: z.boolean(),
      blocked_until: instant.nullable(),
      daily_limit: tokens.nullable(),
      monthly_limit: tokens.nullable(),
    }),
  ),
});
export type ManyPreview = z.infer<typeof manyPreview>;

const bulkStatus = z.enum(["proposed", "rejected", "running", "stopped", "done", "undoing", "undone"]);

export const bulkAct = z.looseObject({
  bulk_id: whole,
  kind: z.string(),
  fields: z.record(z.string(), z.unknown()),
  reason: z.string(),
  operator: z.string(),
  status: bulkStatus,
  why: z.string().nullable(),
  plan,
  accounts: whole,
  done: whole,
  refused: whole,
  undone: whole,
  tokens,
  created_at: instant,
  /** When the last step was kept. */
  stepped_at: instant.nullable(),
  ended_at: instant.nullable(),
  decided_by: z.string().nullable(),
  undo_reason: z.string().nullable(),
  undone_by: z.string().nullable(),
  can_undo: z.boolean(),
});
export type BulkAct = z.infer<typeof bulkAct>;

const bulkRowStatus = z.enum(["waiting", "done", "refused", "undone", "kept"]);
const bulkRow = z.looseObject({
  user_id: z.string().nullable(),
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  status: bulkRowStatus,
  tokens: tokens.nullable(),
  hint: z.string().nullable(),
  message: z.string().nullable(),
});
export type BulkRow = z.infer<typeof bulkRow>;

const userIds = z.array(userId).min(1, "Choose users.").max(mostInBulk);

export const bulkOperations = {
  /** The users that a search finds, all of them. */
  "bulk.choose": operation(
    z
      .object({
        query: z.string().max(500),
        filter: accountFilter,
        plan_id: z.string().nullable(),
        active_since: instant.nullable().default(null),
      })
      .strict(),
    z.object({
      user_ids: z.array(z.string()),
      /** There are more than fit into one act. */ is_cut: z.boolean(),
    }),
  ),
  "bulk.preview": operation(z.object({ user_ids: userIds, correction: manyAct }).strict(), manyPreview),
  "bulk.start": operation(
    z
      .object({
        command_id: commandId,
        user_ids: userIds,
        correction: manyAct,
        reason,
        /** As in the preview. */
        expected_changes: whole,
        expected_tokens: tokens,
      })
      .strict(),
    bulkAct,
  ),
  "bulk.change": operation(
    z
      .object({
        command_id: commandId,
        bulk_id: whole,
        action: z.enum(["approve", "reject", "stop", "go_on", "undo"]),
        reason,
      })
      .strict(),
    bulkAct,
  ),
  /** Sends the steps of a bulk act that runs and that nobody drives. */
  "bulk.drive": operation(z.object({ bulk_id: whole }).strict(), bulkAct),
  "bulk.get": operation(
    z
      .object({
        bulk_id: whole,
        status: bulkRowStatus.nullable(),
        after_id: whole.nullable(),
        limit: z.number().int().min(1).max(1000),
      })
      .strict(),
    z.looseObject({
      bulk: bulkAct,
      rows: z.array(bulkRow),
      next_after_id: whole.nullable(),
      /** This console sends its steps now. */
      is_driven: z.boolean(),
      operator: z.string(),
    }),
  ),
  "bulk.list": operation(
    z.object({ before_id: whole.nullable(), limit: z.number().int().min(1).max(200) }).strict(),
    z.looseObject({ bulks: z.array(bulkAct), next_before_id: whole.nullable() }),
  ),
} as const;
