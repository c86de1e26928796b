/** The costs desk: figures of the roll-ups, and revenue beside them; also as last seen while the project is away. */
import { z } from "zod";
import { costs } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

const rollForward = z.array(
  z.looseObject({ currency: z.string().nullable(), recognised_minor: z.number().int() }),
);

/** The day after, as the instant at which it begins in UTC. */
const nextDay = (day: string): string => new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString();

export function costsHandlers(desk: DeskContext): Pick<Handlers, "costs.get" | "costs.revenue"> {
  return {
    "costs.get": async ({ from, to, step, by, filter }) => {
      const answer = await readThrough(
        desk,
        `costs:${from}:${to}:${step}:${by}:${JSON.stringify(filter)}`,
        "console_costs",
        { p_from: from, p_to: to, p_step: step, p_by: by, p_filter: filter },
        costs,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },
    "costs.revenue": async ({ from, to }) => {
      const answer = await readThrough(
        desk,
        `revenue:${from}:${to}`,
        "console_token_roll_forward",
        { p_from: `${from}T00:00:00Z`, p_to: nextDay(to) },
        rollForward,
      );
      if (!answer.ok) return answer;
      const sums = new Map<string, number>();
      for (const { currency, recognised_minor: minor } of answer.value.value)
        if (currency !== null) sums.set(currency, (sums.get(currency) ?? 0) + minor);
      return ok({
        lines: [...sums].map(([currency, minor]) => ({ currency, recognised_minor: minor })),
        as_of: answer.value.as_of,
      });
    },
  };
}
