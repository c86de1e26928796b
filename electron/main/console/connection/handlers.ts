/** The operations of the connection. */
import type { connectionOperations } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import type { Handlers } from "../dispatch.ts";
import type { Connection } from "./connection.ts";

/** `onRemoved`: this console has forgotten a project. */
export function connectionHandlers(
  connection: Connection,
  onRemoved: (profileId: string) => Promise<void>,
): Pick<Handlers, keyof typeof connectionOperations> {
  return {
    "connection.state": () => ok(connection.state()),
    "connection.profiles": () => ok(connection.listProfiles()),
    "connection.check": async ({ url, key, read_url: readUrl }) => {
      const checked = await connection.check(url, key, readUrl);
      if (!checked.ok) return checked;
      const { project, missing_migrations } = checked.value;
      return ok({ role: "service_role", project, missing_migrations: [...missing_migrations] });
    },
    "connection.add": (input) => connection.add(input),
    "connection.edit": (input) => connection.edit(input),
    "connection.select": ({ profile_id: profileId }) => connection.choose(profileId),
    "connection.open_window": ({ profile_id: profileId }) => connection.openWindow(profileId),
    "connection.remove": async ({ profile_id: profileId }) => {
      const removed = await connection.remove(profileId);
      if (removed.ok) await onRemoved(profileId);
      return removed.ok ? ok({}) : removed;
    },
    "connection.retry": () => connection.retry(),
    "connection.sample_traffic": ({ running }) => connection.setSampleTraffic(running),
  };
}
