/** The finance desk's payments, who may have paid, and revenue. */
import { z } from "zod";
import { listedPayment, payer, type paymentOperations, revenue } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export function paymentHandlers(desk: DeskContext): Pick<Handlers, keyof typeof paymentOperations> {
  return {
    "finance.payments": async ({ text, state, user_id: userId, before_id: before, limit }) => {
      const answer = await readThrough(
        desk,
        `payments:${JSON.stringify([text, state, before, limit, ...(userId === undefined ? [] : [userId])])}`,
        "console_payments",
        {
          p_filter: { text, state, ...(userId === undefined ? {} : { user_id: userId }) },
          p_before_id: before,
          p_limit: limit,
        },
        z.looseObject({
          payments: z.array(listedPayment),
          next_before_id: z.number().int().nullable(),
        }),
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },

    "finance.suggest_payers": async ({ difference_id: differenceId, event_id: eventId }) => {
      const answer = await readThrough(
        desk,
        `payers:${differenceId ?? ""}:${eventId ?? ""}`,
        "console_suggest_payers",
        { p_difference_id: differenceId, p_event_id: eventId },
        z.array(payer),
      );
      return answer.ok ? ok({ payers: answer.value.value }) : answer;
    },

    "finance.revenue": async ({ from, to, step }) => {
      const answer = await readThrough(
        desk,
        `revenue:${from}:${to}:${step}`,
        "console_revenue",
        { p_from: from, p_to: to, p_step: step },
        revenue,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },
  };
}
