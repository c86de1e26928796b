/** The costs desk: figures of the roll-ups; also as last seen while the project is away. */
import { costs } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export function costsHandlers(desk: DeskContext): Pick<Handlers, "costs.get"> {
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
  };
}
