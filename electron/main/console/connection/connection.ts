/** Which project this console works with: adding, choosing and removing one. */
import type { z } from "zod";
import type {
  ConnectionState,
  connectionOperations,
  Failure,
  Profile,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Log } from "../dispatch.ts";
import { createLink, type LinkOptions } from "./link.ts";
import { keepLocalProject, localProfileId, notLocal, type StartLocalProject } from "./local.ts";
import { keepProfiles, unknownProfile } from "./profiles.ts";
import { checkProject, missing } from "./project.ts";

export interface ConnectionOptions extends Omit<LinkOptions, "local" | "keyOf"> {
  readonly keychain: () => Promise<Keychain>;
  readonly startLocalProject: StartLocalProject | null;
  readonly log: Log;
}

export type ProjectToAdd = z.output<(typeof connectionOperations)["connection.add"]["input"]>;
export type ProjectToEdit = z.output<(typeof connectionOperations)["connection.edit"]["input"]>;

export type Connection = ReturnType<typeof createConnection>;

export function createConnection(options: ConnectionOptions) {
  const { store, now, log } = options;
  const local = keepLocalProject({
    ...options,
    onAnother: () => link.isLocal() && options.onProfile(localProfileId),
    onEnd: () => link.isLocal() && void link.select(local.profile()),
  });
  const profiles = keepProfiles({ ...options, local });
  const link = createLink({ ...options, local, keyOf: (profile) => profiles.keyOf(profile) });
  const check = (url: string, key: string, readUrl?: string) =>
    checkProject({ url, key, readUrl: readUrl ?? "" }, options.migrations, now());

  return {
    state: link.state,
    profileId: (): string | null => link.state().profile?.profile_id ?? null,
    rpc: link.rpc,
    wake: link.wake,
    backend: link.backend,
    askAgain: (): Promise<void> => link.askAgain(),
    listProfiles: profiles.list,
    check,

    /** Chooses the project used last, else the local one. Returns at once: the state tells how it goes on. */
    start(): void {
      const profile = profiles.find(store.getSetting("selected_profile")) ?? profiles.list()[0];
      if (!profile) return link.refuse(noProject);
      void link
        .select(profile)
        .catch((error: unknown) => log(`error while connecting: ${(error as Error).message}`));
    },

    async add(input: ProjectToAdd): Promise<Result<Profile, Failure>> {
      const room = profiles.hasRoom();
      if (!room.ok) return room;
      const checked = await check(input.url, input.key, input.read_url);
      if (!checked.ok) return checked;
      const { missing_migrations: lacking, origin, readOrigin } = checked.value;
      if (lacking.length > 0) return fail(missing(lacking, null));
      const { name, key, is_production, is_read_only, color } = input;
      const marks = { name, is_production, is_read_only, color };
      const profile = await profiles.save({ ...marks, key, url: origin, read_url: readOrigin });
      await link.select(profile);
      return ok(profile);
    },

    /** A new key or replica is tried first: what does not work replaces nothing. */
    async edit({
      profile_id: profileId,
      key = "",
      ...change
    }: ProjectToEdit): Promise<Result<Profile, Failure>> {
      const found = profiles.added(profileId);
      if (!found.ok) return found;
      const before = found.value;
      const readUrl = change.read_url ?? before.read_url ?? "";
      const isTried = key !== "" || readUrl !== (before.read_url ?? "");
      const used = key === "" ? ((await profiles.keyOf(before)) ?? "") : key;
      const checked = isTried ? await check(before.url, used, readUrl) : ok({ readOrigin: before.read_url });
      if (!checked.ok) return checked;
      const { name = before.name, color = before.color } = change;
      const { is_production = before.is_production, is_read_only = before.is_read_only } = change;
      const marks = { name, color, is_production, is_read_only, read_url: checked.value.readOrigin };
      const profile = await profiles.change({ ...before, ...marks }, key === "" ? null : key);
      if (link.state().profile?.profile_id !== profileId) return ok(profile);
      if (isTried || is_read_only !== before.is_read_only) await link.select(profile);
      else link.rename(profile);
      return ok(profile);
    },

    async choose(profileId: string): Promise<Result<ConnectionState, Failure>> {
      const profile = profiles.find(profileId);
      if (!profile) return fail(unknownProfile);
      await link.select(profile);
      return ok(link.state());
    },

    async remove(profileId: string): Promise<Result<object, Failure>> {
      const removable = profiles.mayRemove(profileId);
      if (!removable.ok) return removable;
      if (link.state().profile?.profile_id === profileId) {
        const other = profiles.list().find(({ profile_id: id }) => id !== profileId);
        await (other ? link.select(other) : link.leave());
      }
      await profiles.remove(profileId);
      return ok({});
    },

    async retry(): Promise<Result<ConnectionState, Failure>> {
      await link.retry();
      return ok(link.state());
    },

    /** Sample data and traffic belong to the local project alone. */
    async setSampleTraffic(isOn: boolean): Promise<Result<ConnectionState, Failure>> {
      const set = link.isLocal() ? await local.setTraffic(isOn) : fail(notLocal);
      if (!set.ok) return set;
      link.showTraffic();
      return ok(link.state());
    },

    async close(): Promise<void> {
      await link.close();
      await local.close();
    },
  };
}

const noProject: Failure = {
  code: "no_project",
  message: "No project is connected.",
  advice: "Add one under Settings.",
  details: null,
};
