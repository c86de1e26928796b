/** The projects that this console knows, and where the key of each is. */
import { randomUUID } from "node:crypto";
import type { Failure, Profile } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Store } from "../../store/store.ts";
import { type Local, localProfileId } from "./local.ts";

const maxProfiles = 100;

interface NewProfile {
  readonly name: string;
  readonly url: string;
  readonly read_url: string | null;
  readonly key: string;
  readonly is_production: boolean;
  readonly is_read_only: boolean;
  readonly color: Profile["color"];
}

interface ProfilesOptions {
  readonly store: Store;
  readonly keychain: () => Promise<Keychain>;
  readonly local: Local;
  readonly now: () => Date;
}

export type Profiles = ReturnType<typeof keepProfiles>;

export function keepProfiles({ store, keychain, local, now }: ProfilesOptions) {
  const list = (): Profile[] => {
    const added = store.listProfiles();
    return local.isOffered ? [local.profile(), ...added] : added;
  };

  async function keepKey(profileId: string, key: string): Promise<Profile["key_storage"]> {
    return (await (await keychain()).set(profileId, key)) ? "keychain" : "session";
  }

  return {
    list,
    find: (profileId: unknown): Profile | undefined => list().find(({ profile_id: id }) => id === profileId),

    async keyOf({ kind, profile_id: profileId }: Profile): Promise<string | null> {
      if (kind === "local") return local.key();
      return await (await keychain()).get(profileId);
    },

    hasRoom: (): Result<null, Failure> =>
      store.listProfiles().length < maxProfiles ? ok(null) : fail(tooMany),

    /** Keeps a project whose address and key were checked; the same address again replaces its key and name. */
    async save({ key, ...added }: NewProfile): Promise<Profile> {
      const existing = store.listProfiles().find(({ url }) => url === added.url);
      const profileId = existing?.profile_id ?? randomUUID();
      const profile: Profile = {
        ...added,
        profile_id: profileId,
        kind: "supabase",
        key_storage: await keepKey(profileId, key),
        added_at: existing?.added_at ?? now().toISOString(),
      };
      store.putProfile(profile);
      return profile;
    },

    /** Those a person added; the local project is not among them. */
    added: (profileId: string): Result<Profile, Failure> => {
      const profile = store.listProfiles().find(({ profile_id: id }) => id === profileId);
      return profile ? ok(profile) : fail(profileId === localProfileId ? localStays : unknownProfile);
    },

    /** Changes one that is there; a new key was tried before. */
    async change(profile: Profile, key: string | null): Promise<Profile> {
      const changed =
        key === null ? profile : { ...profile, key_storage: await keepKey(profile.profile_id, key) };
      store.putProfile(changed);
      return changed;
    },

    mayRemove(profileId: string): Result<null, Failure> {
      const added = this.added(profileId);
      return added.ok ? ok(null) : added;
    },
    async remove(profileId: string): Promise<void> {
      await (await keychain()).remove(profileId);
      store.removeProfile(profileId);
    },
  };
}

export const unknownProfile: Failure = {
  code: "not_found",
  message: "There is no such project here.",
  advice: "It may have been removed in another window.",
  details: null,
};
const tooMany: Failure = {
  code: "too_many",
  message: "There are too many projects.",
  advice: "Remove one first.",
  details: null,
};
const localStays: Failure = {
  code: "not_removable",
  message: "The local project stays as it is; it can be left unused.",
  advice: null,
  details: null,
};

export function noKey(profile: Profile): Failure {
  return {
    code: "missing_key",
    message:
      profile.key_storage === "session"
        ? "The key of this project was kept for one session only, and that has ended."
        : "The keychain has no key for this project.",
    advice: "Give its key again: Settings, Connections, Edit.",
    details: null,
  };
}
