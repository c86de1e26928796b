/** The one project that is worked with: its session, and the state that the screen shows. */
import {
  type ConnectionState,
  type Failure,
  isReached,
  otherProject,
  type Profile,
} from "../../../../shared/contract/index.ts";
import { fail, type Result } from "../../../../shared/governance/result.ts";
import { type Backend, createBackend } from "../../backend/backend.ts";
import type { SignalTopic } from "../../backend/signals.ts";
import { deviceName } from "./device.ts";
import type { Store } from "../../store/store.ts";
import type { Local } from "./local.ts";
import { noKey } from "./profiles.ts";
import { askProject, type ProjectAnswer } from "./project.ts";
import { type Session, startSession } from "./session.ts";

export interface LinkOptions {
  readonly store: Store;
  readonly local: Local;
  readonly keyOf: (profile: Profile) => Promise<string | null>;
  readonly migrations: readonly string[];
  readonly readNew: (backend: Backend, profileId: string) => Promise<Result<number, Failure>>;
  readonly sendPending: (backend: Backend, profileId: string) => Promise<void>;
  readonly onSignal: (topic: SignalTopic) => void;
  readonly onProfile: (profileId: string | null) => void;
  readonly onState: (state: ConnectionState) => void;
  readonly now: () => Date;
}

/**
 * The project that was chosen at one moment. Work of more than one call asks by it: once another project is chosen, it
 * refuses what is left of the work, which would otherwise go on in the other one.
 */
export interface ChosenProject {
  readonly profileId: string | null;
  readonly isChosen: () => boolean;
  readonly rpc: Backend["rpc"];
  /** Null also where the project cannot be reached. */
  readonly backend: () => Backend | null;
}

const noProject = { profile: null, project: null, replica: null, last_sync_at: null, sample_traffic: null };
/** The screen shows ages in seconds; an update for each reading would be too many. */
const syncNewsMs = 5_000;

/** The state that the screen shows: what it becomes, and what is kept of the project for the time without it. */
function keepState({ store, now, onState }: Pick<LinkOptions, "store" | "now" | "onState">) {
  let state: ConnectionState = {
    ...noProject,
    status: "starting",
    since: now().toISOString(),
    failure: null,
  };
  function update(change: Partial<ConnectionState>): void {
    const next = { ...state, ...change };
    if (change.status !== undefined && change.status !== state.status) next.since = now().toISOString();
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    state = next;
    onState(state);
  }

  return {
    read: (): ConnectionState => state,
    update,

    /** Another project: what is kept of it, until it answers. */
    become(profile: Profile, status: ConnectionState["status"]): void {
      const kept = store.getSnapshot(profile.profile_id, "project");
      const project = (kept?.value as ConnectionState["project"]) ?? null;
      update({ ...noProject, profile, project, last_sync_at: kept?.at ?? null, status, failure: null });
    },
    keepProject(profileId: string, { project }: ProjectAnswer): void {
      const at = now().toISOString();
      store.putSnapshot(profileId, "project", project, at);
      update({ project, last_sync_at: at });
    },
    /** A reading went well. */
    noteSync(): void {
      const ageMs = now().getTime() - Date.parse(state.last_sync_at ?? "");
      if (!(ageMs < syncNewsMs)) update({ last_sync_at: now().toISOString() });
    },
  };
}

type Shown = ReturnType<typeof keepState>;

/** Follows a project; what comes after another was chosen is dropped. */
function open(
  options: LinkOptions,
  shown: Shown,
  isCurrent: () => boolean,
  profile: Profile,
  key: string,
): Session {
  const { profile_id: profileId } = profile;
  const backend = createBackend({
    url: profile.url,
    key,
    readUrl: profile.read_url,
    isReadOnly: profile.is_read_only,
    device: deviceName(options.store),
  });
  return startSession({
    backend,
    migrations: options.migrations,
    readNew: async () => {
      const answer = await options.readNew(backend, profileId);
      if (answer.ok && isCurrent()) shown.noteSync();
      return answer;
    },
    sendPending: () => options.sendPending(backend, profileId),
    onSignal: options.onSignal,
    onStatus: (status, failure) => isCurrent() && shown.update({ status, failure }),
    onReplica: (replica) => isCurrent() && shown.update({ replica }),
    onProject: (answer) => isCurrent() && shown.keepProject(profileId, answer),
  });
}

/** Calls of a desk. They tell the session when the project cannot be reached. */
function callsOf(session: () => Session | null, state: () => ConnectionState): Backend["rpc"] {
  return async (name, parameters, schema, options) => {
    const { status, failure } = state();
    const asked = session();
    if (!asked) return fail(failure ?? notConnected);
    // Known to be unreachable: fail now instead of after a time-out. The session finds out when it is back.
    if (status === "offline" && failure) return fail(failure);
    const answer = await asked.backend.rpc(name, parameters, schema, options);
    if (!answer.ok && session() === asked) asked.reportFailure(answer.error);
    return answer;
  };
}

function chosenNow(
  chosen: () => string | null,
  rpc: Backend["rpc"],
  backend: () => Backend | null,
): ChosenProject {
  const profileId = chosen();
  const isChosen = (): boolean => chosen() === profileId;
  return {
    profileId,
    isChosen,
    rpc: async (...call) => (isChosen() ? rpc(...call) : fail(otherProject)),
    backend: () => (isChosen() ? backend() : null),
  };
}

export function createLink(options: LinkOptions) {
  const { store, local } = options;
  const shown = keepState(options);
  const { read: state, update } = shown;
  let session: Session | null = null;
  let isClosed = false;
  /** Counts selections: an answer that belongs to an earlier one is dropped. */
  let generation = 0;
  const isLocal = (): boolean => state().profile?.kind === "local";
  const trafficState = () => (isLocal() ? local.trafficState() : null);

  /** Ends what was and shows what is kept of the project that is wanted now. */
  async function leaveFor(profile: Profile): Promise<void> {
    const previous = session;
    const wasLocal = isLocal();
    session = null;
    store.setSetting("selected_profile", profile.profile_id);
    options.onProfile(profile.profile_id);
    shown.become(profile, profile.kind === "local" && !local.isRunning() ? "starting" : "connecting");
    await previous?.stop();
    if (profile.kind === "local") await local.ensure();
    else if (wasLocal && !isLocal()) await local.pauseTraffic();
  }

  async function select(profile: Profile): Promise<void> {
    const mine = ++generation;
    await leaveFor(profile);
    if (mine !== generation || isClosed) return;
    const key = await options.keyOf(profile);
    if (mine !== generation || isClosed) return;
    if (key === null) {
      update({ status: "refused", failure: profile.kind === "local" ? local.failure() : noKey(profile) });
      return;
    }
    // The local project has another address at each start.
    const current = profile.kind === "local" ? local.profile() : profile;
    if (profile.kind === "local") await local.resumeTraffic();
    if (mine !== generation || isClosed) return;
    update({ profile: current, status: "connecting", sample_traffic: trafficState() });
    session = open(options, shown, () => mine === generation, current, key);
  }

  const rpc = callsOf(() => session, state);
  const backend = (): Backend | null => (isReached(state().status) ? (session?.backend ?? null) : null);

  const traffic = setInterval(() => isLocal() && update({ sample_traffic: trafficState() }), 1_000);
  traffic.unref();

  return {
    state,
    isLocal,
    select,
    refuse: (failure: Failure): void => update({ status: "refused", failure }),
    showTraffic: (): void => update({ sample_traffic: trafficState() }),

    /** The project stays chosen, and is not asked until a person tries again. */
    async giveUp(failure: Failure): Promise<void> {
      generation++;
      const previous = session;
      session = null;
      update({ status: "refused", failure });
      await previous?.stop();
    },

    /** Stops following the project. Answers whether none was chosen meanwhile. */
    async leave(): Promise<boolean> {
      const mine = ++generation;
      const previous = session;
      session = null;
      options.onProfile(null);
      update({ ...noProject, status: "refused", failure: null });
      await previous?.stop();
      return mine === generation;
    },

    async retry(): Promise<void> {
      const { profile } = state();
      if (session) session.wake();
      else if (profile) await select(profile);
    },

    /** The same project under another name or colour. */
    rename: (profile: Profile): void => update({ profile }),

    /** Reads the project's own description again, after its configuration was changed. */
    async askAgain(): Promise<void> {
      const profileId = state().profile?.profile_id;
      if (!session || profileId === undefined) return;
      const mine = generation;
      const answer = await askProject(session.backend, options.migrations, { retries: 1 });
      if (answer.ok && mine === generation) shown.keepProject(profileId, answer.value);
    },

    rpc,
    /** Reads on at once, e.g. after an act whose effect the feed will show. */
    wake: (): void => session?.wake(),
    backend,
    current: (): ChosenProject => chosenNow(() => state().profile?.profile_id ?? null, rpc, backend),

    async close(): Promise<void> {
      isClosed = true;
      generation++;
      clearInterval(traffic);
      await session?.stop();
      if (isLocal()) await local.pauseTraffic();
    },
  };
}

export const notConnected: Failure = {
  code: "offline",
  message: "The project is not connected yet.",
  advice: "Wait a moment, or see Settings.",
  details: null,
};
