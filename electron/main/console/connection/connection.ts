/** Which project this console works with, with what key, and how that stands. */
import { createHash, randomUUID } from "node:crypto";
import type { z } from "zod";
import type { ConnectionState, Failure, Profile } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type Backend, createBackend, type RpcOptions, type SignalTopic } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Store } from "../../store/store.ts";
import type { Log } from "../dispatch.ts";
import { checkKey, parseProjectUrl } from "./key-check.ts";
import { askProject, missing, type ProjectAnswer } from "./project.ts";
import { askReplica, askReplicaEveryMs, checkReplica } from "./replica-state.ts";
import { type Session, startSession } from "./session.ts";

/** The project on this machine, as the composition root starts it. */
export interface LocalProject {
  readonly url: string;
  readonly serviceRoleKey: string;
  /** Null where it was started without sample data. */
  readonly sampleTraffic: {
    start(): void | Promise<void>;
    stop(): void | Promise<void>;
    status(): { running: boolean; calls: number; filling: number | null; problem?: string | null };
  } | null;
  stop(): Promise<void>;
  /** Settles when it ends: null after `stop`, else what went wrong. */
  readonly ended: Promise<Error | null>;
}
export type StartLocalProject = () => Promise<LocalProject>;

export interface ConnectionOptions {
  readonly store: Store;
  readonly keychain: () => Promise<Keychain>;
  readonly startLocalProject: StartLocalProject | null;
  readonly migrations: readonly string[];
  readonly readNew: (backend: Backend, profileId: string) => Promise<Result<number, Failure>>;
  readonly sendPending: (backend: Backend, profileId: string) => Promise<void>;
  readonly onSignal: (topic: SignalTopic) => void;
  readonly onProfile: (profileId: string | null) => void;
  readonly onState: (state: ConnectionState) => void;
  readonly now: () => Date;
  readonly log: Log;
}

export const localProfileId = "local";
const maxProfiles = 100;

export type Connection = ReturnType<typeof createConnection>;

export function createConnection(options: ConnectionOptions) {
  const { store, now } = options;
  /** Keys that no keychain keeps: gone with this process. */
  const sessionKeys = new Map<string, string>();
  let session: Session | null = null;
  let localProject: LocalProject | null = null;
  let localFailure: Failure | null = null;
  let localStart: Promise<void> | null = null;
  let isClosed = false;
  /** Counts selections: an answer that belongs to an earlier one is dropped. */
  let generation = 0;
  let state: ConnectionState = {
    profile: null,
    status: "starting",
    since: now().toISOString(),
    failure: null,
    project: null,
    replica: null,
    last_sync_at: null,
    sample_traffic: null,
  };

  function update(change: Partial<ConnectionState>): void {
    const next = { ...state, ...change };
    if (change.status !== undefined && change.status !== state.status) next.since = now().toISOString();
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    state = next;
    options.onState(state);
  }

  const localProfile = (): Profile => ({
    profile_id: localProfileId,
    name: "Local project",
    url: localProject?.url ?? "",
    read_url: null,
    kind: "local",
    is_production: false,
    key_storage: "generated",
    added_at: (store.getSetting("local_added_at") as string | null) ?? now().toISOString(),
  });

  function listProfiles(): Profile[] {
    const added = store.listProfiles();
    return options.startLocalProject ? [localProfile(), ...added] : added;
  }

  async function keyOf(profile: Profile): Promise<string | null> {
    if (profile.kind === "local") return localProject?.serviceRoleKey ?? null;
    return sessionKeys.get(profile.profile_id) ?? (await (await options.keychain()).get(profile.profile_id));
  }

  function sampleTrafficState(): ConnectionState["sample_traffic"] {
    return state.profile?.kind === "local" ? (localProject?.sampleTraffic?.status() ?? null) : null;
  }

  /** Sample data and traffic belong to the local project alone: the one place that starts them. */
  async function setSampleTraffic(running: boolean): Promise<Result<ConnectionState, Failure>> {
    const traffic = localProject?.sampleTraffic;
    if (state.profile?.kind !== "local" || !traffic) {
      return fail({
        code: "not_local",
        message:
          "Sample traffic exists in the local project alone; a connected project is never touched by it.",
        advice: "Choose the local project first.",
        details: null,
      });
    }
    store.setSetting("sample_traffic", running);
    await (running ? traffic.start() : traffic.stop());
    update({ sample_traffic: sampleTrafficState() });
    return ok(state);
  }

  /** The folder may have been deleted and made anew: what was read before, cursor included, is of another database. */
  function forgetIfAnother(started: LocalProject): void {
    const fingerprint = createHash("sha256").update(started.serviceRoleKey).digest("hex");
    const known = store.getSetting("local_fingerprint");
    if (known === fingerprint) return;
    store.setSetting("local_fingerprint", fingerprint);
    if (known === null) return;
    store.removeProfile(localProfileId);
    if (state.profile?.kind === "local") options.onProfile(localProfileId);
  }

  async function ensureLocalProject(): Promise<void> {
    if (localProject || !options.startLocalProject) return;
    localFailure = null;
    localStart ??= options
      .startLocalProject()
      .then(async (started) => {
        if (isClosed) return started.stop();
        localProject = started;
        forgetIfAnother(started);
        void started.ended.then((error) => {
          if (isClosed || localProject !== started) return;
          localProject = null;
          options.log(`The local project ended: ${error?.message ?? "it was stopped"}`);
          if (state.profile?.kind === "local") void select(state.profile);
        });
        if (store.getSetting("local_added_at") === null)
          store.setSetting("local_added_at", now().toISOString());
      })
      .catch((error: unknown) => {
        options.log(`The local project did not start: ${(error as Error).message}`);
        localFailure = {
          code: "local_project_failed",
          message: `The local project could not start: ${(error as Error).message}`,
          advice: "Put that right, then try again; or connect a Supabase project.",
          details: null,
        };
      })
      .finally(() => {
        localStart = null;
      });
    await localStart;
  }

  async function select(profile: Profile): Promise<void> {
    const mine = ++generation;
    const previous = session;
    session = null;
    store.setSetting("selected_profile", profile.profile_id);
    options.onProfile(profile.profile_id);
    const snapshot = store.getSnapshot(profile.profile_id, "project");
    update({
      profile,
      status: profile.kind === "local" && !localProject ? "starting" : "connecting",
      failure: null,
      replica: null,
      project: (snapshot?.value as ConnectionState["project"]) ?? null,
      last_sync_at: snapshot?.at ?? null,
      sample_traffic: null,
    });
    await previous?.stop();
    if (profile.kind === "local") await ensureLocalProject();
    else await localProject?.sampleTraffic?.stop();
    if (mine !== generation || isClosed) return;
    const key = await keyOf(profile);
    if (mine !== generation || isClosed) return;
    if (key === null) {
      update({ status: "refused", failure: profile.kind === "local" ? localFailure : noKey(profile) });
      return;
    }
    const current = profile.kind === "local" ? localProfile() : profile;
    if (profile.kind === "local" && store.getSetting("sample_traffic") !== false) {
      await localProject?.sampleTraffic?.start();
    }
    update({ profile: current, status: "connecting", sample_traffic: sampleTrafficState() });
    const backend = createBackend({ url: current.url, key, readUrl: current.read_url });
    session = startSession({
      backend,
      migrations: options.migrations,
      readNew: async () => {
        const answer = await options.readNew(backend, profile.profile_id);
        const age = now().getTime() - Date.parse(state.last_sync_at ?? "");
        // The screen tells ages in seconds; each reading would be too much news.
        if (answer.ok && mine === generation && !(age < 5_000)) update({ last_sync_at: now().toISOString() });
        return answer;
      },
      sendPending: () => options.sendPending(backend, profile.profile_id),
      onSignal: options.onSignal,
      onStatus: (status, failure) => mine === generation && update({ status, failure }),
      onProject: (answer) => mine === generation && keepProject(profile.profile_id, answer),
    });
    void lookAtReplica();
  }

  function keepProject(profileId: string, { project }: ProjectAnswer): void {
    const at = now().toISOString();
    store.putSnapshot(profileId, "project", project, at);
    update({ project, last_sync_at: at });
  }

  /** A key and address that a person typed; every way they can be wrong is a failure of its own. */
  async function check(
    url: string,
    key: string,
    readUrl = "",
  ): Promise<Result<ProjectAnswer & { origin: string; readOrigin: string | null }, Failure>> {
    const origin = parseProjectUrl(url);
    if (!origin.ok) return origin;
    const readOrigin = readUrl === "" ? ok(null) : parseProjectUrl(readUrl);
    if (!readOrigin.ok) return readOrigin;
    const kind = checkKey(key, origin.value, now());
    if (!kind.ok) return kind;
    const backend = createBackend({ url: origin.value, key });
    try {
      const answer = await askProject(backend, options.migrations, { retries: 1, timeoutMs: 10_000 });
      if (!answer.ok) return answer;
      if (readOrigin.value !== null) {
        const replica = await checkReplica(readOrigin.value, key);
        if (!replica.ok) return replica;
      }
      return ok({ ...answer.value, origin: origin.value, readOrigin: readOrigin.value });
    } finally {
      await backend.close();
    }
  }

  const traffic = setInterval(() => {
    if (state.profile?.kind === "local") update({ sample_traffic: sampleTrafficState() });
  }, 1_000);
  traffic.unref();

  const replica = setInterval(() => void lookAtReplica(), askReplicaEveryMs);
  replica.unref();
  async function lookAtReplica(): Promise<void> {
    const current = session?.backend;
    if (!current?.replica || state.status === "offline") return;
    const answer = await askReplica(current);
    if (session?.backend === current) update({ replica: answer });
  }

  return {
    state: (): ConnectionState => state,
    profileId: (): string | null => state.profile?.profile_id ?? null,
    listProfiles,
    check,
    setSampleTraffic,

    /** Chooses the project used last, else the local one. Returns at once: the state tells how it goes on. */
    start(): void {
      const wanted = store.getSetting("selected_profile");
      const profiles = listProfiles();
      const profile = profiles.find(({ profile_id: id }) => id === wanted) ?? profiles[0];
      if (profile)
        void select(profile).catch((error: unknown) =>
          options.log(`error while connecting: ${(error as Error).message}`),
        );
      else
        update({
          status: "refused",
          failure: {
            code: "no_project",
            message: "No project is connected.",
            advice: "Add one under Settings.",
            details: null,
          },
        });
    },

    async add(input: {
      name: string;
      url: string;
      key: string;
      read_url?: string | undefined;
      is_production: boolean;
    }): Promise<Result<Profile, Failure>> {
      if (store.listProfiles().length >= maxProfiles) {
        return fail({
          code: "too_many",
          message: "There are too many projects.",
          advice: "Remove one first.",
          details: null,
        });
      }
      const checked = await check(input.url, input.key, input.read_url);
      if (!checked.ok) return checked;
      if (checked.value.missing_migrations.length > 0)
        return fail(missing(checked.value.missing_migrations, null));
      const existing = store.listProfiles().find(({ url }) => url === checked.value.origin);
      const profileId = existing?.profile_id ?? randomUUID();
      const isKept = await (await options.keychain()).set(profileId, input.key);
      if (isKept) sessionKeys.delete(profileId);
      else sessionKeys.set(profileId, input.key);
      const profile: Profile = {
        profile_id: profileId,
        name: input.name,
        url: checked.value.origin,
        read_url: checked.value.readOrigin,
        kind: "supabase",
        is_production: input.is_production,
        key_storage: isKept ? "keychain" : "session",
        added_at: existing?.added_at ?? now().toISOString(),
      };
      store.putProfile(profile);
      await select(profile);
      return ok(profile);
    },

    async choose(profileId: string): Promise<Result<ConnectionState, Failure>> {
      const profile = listProfiles().find(({ profile_id: id }) => id === profileId);
      if (!profile) return fail(unknownProfile);
      await select(profile);
      return ok(state);
    },

    async remove(profileId: string): Promise<Result<object, Failure>> {
      if (profileId === localProfileId) {
        return fail({
          code: "not_removable",
          message: "The local project stays; it can be left unused.",
          advice: null,
          details: null,
        });
      }
      if (!store.listProfiles().some(({ profile_id: id }) => id === profileId)) return fail(unknownProfile);
      if (state.profile?.profile_id === profileId) {
        const other = listProfiles().find(({ profile_id: id }) => id !== profileId);
        if (other) await select(other);
        else {
          generation++;
          await session?.stop();
          session = null;
          options.onProfile(null);
          update({
            profile: null,
            status: "refused",
            project: null,
            replica: null,
            last_sync_at: null,
            failure: null,
          });
        }
      }
      sessionKeys.delete(profileId);
      await (await options.keychain()).remove(profileId);
      store.removeProfile(profileId);
      return ok({});
    },

    async retry(): Promise<Result<ConnectionState, Failure>> {
      if (session) session.wake();
      else if (state.profile) await select(state.profile);
      return ok(state);
    },

    /** A call of a desk. Tells the session when the project cannot be reached. */
    async rpc<S extends z.ZodType>(
      name: string,
      parameters: Readonly<Record<string, unknown>>,
      schema: S,
      rpcOptions?: RpcOptions,
    ): Promise<Result<z.output<S>, Failure>> {
      if (!session) return fail(state.failure ?? notConnected);
      // Known to be unreachable: say so now instead of after a time-out. The session finds out when it is back.
      if (state.status === "offline" && state.failure) return fail(state.failure);
      const answer = await session.backend.rpc(name, parameters, schema, rpcOptions);
      if (!answer.ok) session?.reportFailure(answer.error);
      return answer;
    },

    /** Reads on at once, e.g. after an act whose effect the feed will show. */
    wake: (): void => session?.wake(),
    backend: (): Backend | null =>
      state.status === "live" || state.status === "catching_up" ? (session?.backend ?? null) : null,

    async close(): Promise<void> {
      isClosed = true;
      generation++;
      clearInterval(traffic);
      clearInterval(replica);
      await session?.stop();
      await localStart;
      await localProject?.stop();
    },
  };
}

export const notConnected: Failure = {
  code: "offline",
  message: "The project is not connected yet.",
  advice: "Wait a moment, or see Settings.",
  details: null,
};

/** Whether a failure means that the project could not be asked, so that the last answer may stand in. */
export function isOffline(failure: Failure): boolean {
  return isUnreachable(failure);
}

const unknownProfile: Failure = {
  code: "not_found",
  message: "There is no such project here.",
  advice: "It may have been removed in another window.",
  details: null,
};

function noKey(profile: Profile): Failure {
  return {
    code: "missing_key",
    message:
      profile.key_storage === "session"
        ? "The key of this project was kept for one session only, and that has ended."
        : "The keychain has no key for this project.",
    advice: "Add the project again with its key.",
    details: null,
  };
}
