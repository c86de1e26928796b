/** Which project a console works with: adding, choosing and removing one. Each project has one console at most. */
import type { z } from "zod";
import type {
  ConnectionState,
  connectionOperations,
  Failure,
  Profile,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Log } from "../dispatch.ts";
import type { Holder, Shared } from "../shared.ts";
import { createLink, type LinkOptions } from "./link.ts";
import { localProfileId, notLocal } from "./local.ts";
import { type Profiles, unknownProfile } from "./profiles.ts";
import { checkProject, missing } from "./project.ts";

interface ConnectionOptions extends Omit<LinkOptions, "store" | "local" | "keyOf"> {
  readonly shared: Shared;
  /** Shows a project in a window of its own; null where there is one window. */
  readonly showElsewhere: ((profileId: string) => void) | null;
  readonly log: Log;
}

type ProjectToAdd = z.output<(typeof connectionOperations)["connection.add"]["input"]>;
type ProjectToEdit = z.output<(typeof connectionOperations)["connection.edit"]["input"]>;

export interface Connection extends ReturnType<typeof createConnection> {}

export function createConnection(options: ConnectionOptions) {
  const { shared, now, log, showElsewhere } = options;
  const { store, local, profiles } = shared;
  const link = createLink({ ...options, store, local, keyOf: (profile) => profiles.keyOf(profile) });
  const check = (url: string, key: string, readUrl?: string) =>
    checkProject({ url, key, readUrl: readUrl ?? "" }, options.migrations, now());
  const logged = (work: Promise<void>): void =>
    void work.catch((error: unknown) => log(`error while connecting: ${(error as Error).message}`));

  const connection = {
    state: link.state,
    profileId: (): string | null => link.state().profile?.profile_id ?? null,
    rpc: link.rpc,
    current: link.current,
    wake: link.wake,
    backend: link.backend,
    askAgain: (): Promise<void> => link.askAgain(),
    listProfiles: profiles.list,
    check,

    /**
     * The project that is named, else the one used last, else the local one. Returns at once: the state shows the
     * progress.
     */
    start(profileId?: string): void {
      const profile = profiles.find(profileId ?? store.getSetting("selected_profile")) ?? freeProfile();
      if (profile && !shared.holderOf(profile.profile_id)) logged(link.select(profile));
      else link.refuse(noProject);
    },

    async add(input: ProjectToAdd): Promise<Result<Profile, Failure>> {
      const added = await keep(profiles, check, input);
      if (added.ok) await open(added.value, true);
      return added;
    },

    async edit(input: ProjectToEdit): Promise<Result<Profile, Failure>> {
      const edited = await change(profiles, check, input);
      if (!edited.ok) return edited;
      const { profile, isAnew } = edited.value;
      await shared.holderOf(profile.profile_id)?.become(profile, isAnew);
      return ok(profile);
    },

    async become(profile: Profile, isAnew: boolean): Promise<void> {
      if (isAnew) await link.select(profile);
      else link.rename(profile);
    },

    async choose(profileId: string): Promise<Result<ConnectionState, Failure>> {
      const profile = profiles.find(profileId);
      if (!profile) return fail(unknownProfile);
      await open(profile, false);
      return ok(link.state());
    },

    /** Shows a project in a window of its own, and leaves this one as it is. */
    openWindow(profileId: string): Result<Record<string, unknown>, Failure> {
      if (!profiles.find(profileId)) return fail(unknownProfile);
      if (!showElsewhere) return fail(oneWindow);
      showElsewhere(profileId);
      return ok({});
    },

    async remove(profileId: string): Promise<Result<object, Failure>> {
      const removable = profiles.mayRemove(profileId);
      if (!removable.ok) return removable;
      await shared.holderOf(profileId)?.leave();
      await profiles.remove(profileId);
      return ok({});
    },

    async leave(): Promise<void> {
      const other = freeProfile();
      // Nobody waits for it: the local project may have to start first.
      if ((await link.leave()) && other && !shared.holderOf(other.profile_id)) logged(link.select(other));
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

    noteAnotherLocal(): void {
      if (link.isLocal()) options.onProfile(localProfileId);
    },
    noteLocalEnd(failure: Failure | null): void {
      if (!link.isLocal()) return;
      logged(failure === null ? link.select(local.profile()) : link.giveUp(failure));
    },

    async close(): Promise<void> {
      shared.connections.delete(connection);
      await link.close();
    },
  };

  function freeProfile(): Profile | undefined {
    return profiles.list().find(({ profile_id: id }) => !shared.holderOf(id));
  }

  /** In this console, or where it is open already; there it is connected to again where its key may be another. */
  async function open(profile: Profile, isChanged: boolean): Promise<void> {
    const holder = shared.holderOf(profile.profile_id);
    if (holder === null || holder === connection) return link.select(profile);
    if (isChanged) await holder.become(profile, true);
    showElsewhere?.(profile.profile_id);
  }

  shared.connections.add(connection satisfies Holder);
  return connection;
}

type Check = (url: string, key: string, readUrl?: string) => ReturnType<typeof checkProject>;

async function keep(
  profiles: Profiles,
  check: Check,
  input: ProjectToAdd,
): Promise<Result<Profile, Failure>> {
  const room = profiles.hasRoom();
  if (!room.ok) return room;
  const checked = await check(input.url, input.key, input.read_url);
  if (!checked.ok) return checked;
  const { missing_migrations: lacking, origin, readOrigin } = checked.value;
  if (lacking.length > 0) return fail(missing(lacking, null));
  const { name, key, is_production, is_read_only, color } = input;
  const marks = { name, is_production, is_read_only, color };
  return ok(await profiles.save({ ...marks, key, url: origin, read_url: readOrigin }));
}

/** A new key or replica is tried first: what does not work replaces nothing. */
async function change(
  profiles: Profiles,
  check: Check,
  { profile_id: profileId, key = "", ...wanted }: ProjectToEdit,
): Promise<Result<{ readonly profile: Profile; readonly isAnew: boolean }, Failure>> {
  const found = profiles.added(profileId);
  if (!found.ok) return found;
  const before = found.value;
  const readUrl = wanted.read_url ?? before.read_url ?? "";
  const isTried = key !== "" || readUrl !== (before.read_url ?? "");
  const used = key === "" ? ((await profiles.keyOf(before)) ?? "") : key;
  const checked = isTried ? await check(before.url, used, readUrl) : ok({ readOrigin: before.read_url });
  if (!checked.ok) return checked;
  const { name = before.name, color = before.color } = wanted;
  const { is_production = before.is_production, is_read_only = before.is_read_only } = wanted;
  const marks = { name, color, is_production, is_read_only, read_url: checked.value.readOrigin };
  const profile = await profiles.change({ ...before, ...marks }, key === "" ? null : key);
  return ok({ profile, isAnew: isTried || is_read_only !== before.is_read_only });
}

const noProject: Failure = {
  code: "no_project",
  message: "No project is connected.",
  advice: "Add one under Settings.",
  details: null,
};
const oneWindow: Failure = {
  code: "one_window",
  message: "Here all pages show one project.",
  advice: "The program in its own window opens a window for each.",
  details: null,
};
