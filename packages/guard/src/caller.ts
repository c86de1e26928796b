import type { GuardRequest } from "../../../shared/governance/guard/index.ts";

/** For whom a call is made. The rest of a call (model, message, length) the integrations read from the call itself. */
export type Caller = Omit<GuardRequest, "model" | "message" | "request_id">;
