/** Corrections of one account: tried in the database first, then sent once. */
import { correctionsOperations, correctionWords, preview, tried } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import type { Commands } from "./sent-once.ts";

type CorrectionHandlers = Pick<Handlers, keyof typeof correctionsOperations>;

const outcome = correctionsOperations["users.correct"].output;
/** What a preview sends in the place of a command's id and reason: nothing of it is kept. */
const dryRun = { p_command_id: "preview", p_reason: "preview", p_dry_run: true };

export function correctionHandlers(desk: DeskContext, { send }: Commands): CorrectionHandlers {
  const { connection, operator } = desk;
  return {
    "users.preview": ({ user_id: userId, correction }) =>
      connection.rpc(
        "console_act",
        {
          p_user_id: userId,
          p_act: correction,
          p_operator: operator(),
          ...dryRun,
        },
        preview,
      ),
    "users.correct": (input) =>
      send(
        "console_act",
        {
          p_command_id: input.command_id,
          p_user_id: input.user_id,
          p_act: input.correction,
          p_reason: input.reason,
          p_operator: operator(),
          p_expected_version: input.expected_version,
        },
        `${correctionWords[input.correction.kind].title}: ${input.user_id}`,
        outcome,
      ),
    "users.preview_undo": ({ act_id: actId }) =>
      connection.rpc(
        "console_undo_act",
        {
          p_act_id: actId,
          p_operator: operator(),
          ...dryRun,
        },
        preview,
      ),
    "users.undo": (input) =>
      send(
        "console_undo_act",
        {
          p_command_id: input.command_id,
          p_act_id: input.act_id,
          p_reason: input.reason,
          p_operator: operator(),
        },
        `Undo of act ${input.act_id}`,
        outcome,
      ),
    "users.preview_approval": ({ act_id: actId }) =>
      connection.rpc(
        "console_decide_act",
        {
          p_act_id: actId,
          p_decision: "approve",
          p_operator: operator(),
          ...dryRun,
        },
        preview,
      ),
    "users.decide": (input) =>
      send(
        "console_decide_act",
        {
          p_command_id: input.command_id,
          p_act_id: input.act_id,
          p_decision: input.decision,
          p_reason: input.reason,
          p_operator: operator(),
        },
        `${input.decision === "approve" ? "Approval" : "Rejection"} of act ${input.act_id}`,
        outcome,
      ),
    "users.try_decision": ({ decision_id: decisionId }) =>
      connection.rpc("console_try_decision", { p_decision_id: decisionId }, tried),
    "users.acts": async ({ mine, user_id: userId, status, before_id: beforeId, limit }) => {
      const listed = await connection.rpc(
        "console_list_acts",
        {
          p_filter: { operator: mine ? operator() : null, user_id: userId, status },
          p_before_id: beforeId,
          p_limit: limit,
        },
        correctionsOperations["users.acts"].output.omit({ operator: true }),
      );
      return listed.ok ? ok({ ...listed.value, operator: operator() }) : listed;
    },
  };
}
