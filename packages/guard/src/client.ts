import type { Guard } from "../../../shared/governance/guard/index.ts";
import type { Caller } from "./caller.ts";
import { guardFetch } from "./fetch.ts";

/** What OpenAI's and Anthropic's clients have in common: a copy of them with another `fetch`. */
export interface CopiedWithOptions {
  withOptions(options: { fetch: typeof fetch }): unknown;
}

/**
 * The client of OpenAI or Anthropic, or one made like them, with every call guarded for this caller: same type, same
 * methods. It is cheap; make one a request: `const ai = guardClient(openai, guard, { user })`. A refused call throws the
 * client's own error with the status of the refusal; `refusalOf` reads it.
 */
export function guardClient<C extends CopiedWithOptions>(client: C, guard: Guard, caller: Caller): C {
  const own = (client as { fetch?: unknown }).fetch;
  const options = typeof own === "function" ? { fetch: own as typeof fetch } : {};
  return client.withOptions({ fetch: guardFetch(guard, caller, options) }) as C;
}
