/** The operations on what waits to be sent. */
import type { Intent, syncOperations } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export function waitingIntents({ connection, outbox }: DeskContext): Intent[] {
  const profileId = connection.profileId();
  return profileId === null ? [] : outbox.list(profileId);
}

export function syncHandlers(desk: DeskContext): Pick<Handlers, keyof typeof syncOperations> {
  const { connection, outbox } = desk;
  return {
    "sync.intents": () => ok(waitingIntents(desk)),
    "sync.resolve": async ({ command_id: commandId, choice }) => {
      const profileId = connection.profileId();
      if (profileId === null) return ok([]);
      const resolved = await outbox.resolve(profileId, connection.backend(), commandId, choice);
      if (resolved.ok) connection.wake();
      return resolved;
    },
  };
}
