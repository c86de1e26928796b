/** Which project this console works with: adding, choosing and removing one. */
import type { ConnectionState, Failure, Profile } from "../../../../shared/contract/index.ts";
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

export interface ProjectToAdd {
  readonly name: string;
  readonly url: string;
  readonly key: string;
  readonly read_url?: string | undefined;
  readonly is_production: boolean;
}

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
      const { name, key, is_production } = input;
      const profile = await profiles.save({ name, key, is_production, url: origin, read_url: readOrigin });
      await link.select(profile);
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
