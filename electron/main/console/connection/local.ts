/** The project on this machine: started at its first use, and what is known of it here. */
import { createHash } from "node:crypto";
import type { ConnectionState, Failure, Profile } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Store } from "../../store/store.ts";
import type { Log } from "../dispatch.ts";

/** The project on this machine, as the composition root starts it. */
export interface LocalProject {
  readonly url: string;
  readonly serviceRoleKey: string;
  /** Null where it has none. */
  readonly sampleTraffic: {
    /** Left out: it does. Else it begins once a person has asked for it. */
    readonly startsItself?: boolean;
    start(): void | Promise<void>;
    stop(): void | Promise<void>;
    status(): { running: boolean; calls: number; filling: number | null; problem?: string | null };
  } | null;
  stop(): Promise<void>;
  /** Settles when it ends: null after `stop`, else what went wrong. */
  readonly ended: Promise<Error | null>;
}
export type StartLocalProject = () => Promise<LocalProject>;

interface LocalOptions {
  readonly store: Store;
  /** Null where this console has no local project to offer. */
  readonly startLocalProject: StartLocalProject | null;
  readonly now: () => Date;
  readonly log: Log;
  /** The folder was created again: what was read before belongs to another database. */
  readonly onAnother: () => void;
  /** It ended by itself. Null: it may be started again; else why that is left to a person. */
  readonly onEnd: (failure: Failure | null) => void;
}

const recentMs = 60_000;
const mostEndsInRecent = 3;

export const localProfileId = "local";

export type Local = ReturnType<typeof keepLocalProject>;

export function keepLocalProject(options: LocalOptions) {
  const { store, now, log } = options;
  let project: LocalProject | null = null;
  let failure: Failure | null = null;
  let starting: Promise<void> | null = null;
  let isClosed = false;
  const ends: number[] = [];

  /** A project that keeps ending is not restarted for ever. */
  function noteEnd(details: string): Failure | null {
    const at = now().getTime();
    ends.push(at);
    const recent = ends.filter((each) => at - each < recentMs).length;
    if (recent <= mostEndsInRecent) return null;
    ends.length = 0;
    return { ...keepsEnding, details };
  }

  function forgetIfAnother(started: LocalProject): void {
    const fingerprint = createHash("sha256").update(started.serviceRoleKey).digest("hex");
    const known = store.getSetting("local_fingerprint");
    if (known === fingerprint) return;
    store.setSetting("local_fingerprint", fingerprint);
    if (known === null) return;
    store.removeProfile(localProfileId);
    options.onAnother();
  }

  async function start(startLocalProject: StartLocalProject): Promise<void> {
    try {
      const started = await startLocalProject();
      if (isClosed) return await started.stop();
      project = started;
      forgetIfAnother(started);
      void started.ended.then((error) => {
        if (isClosed || project !== started) return;
        project = null;
        const why = error?.message ?? "it was stopped";
        log(`The local project ended: ${why}`);
        failure = noteEnd(why);
        options.onEnd(failure);
      });
      if (store.getSetting("local_added_at") === null)
        store.setSetting("local_added_at", now().toISOString());
    } catch (error) {
      const { message } = error as Error;
      log(`The local project did not start: ${message}`);
      failure = {
        code: "local_project_failed",
        message: `The local project could not start: ${message}`,
        advice: "Put that right, then try again; or connect a Supabase project.",
        details: null,
      };
    } finally {
      starting = null;
    }
  }

  return {
    isOffered: options.startLocalProject !== null,
    isRunning: (): boolean => project !== null,
    /** Why it did not start. */
    failure: (): Failure | null => failure,
    key: (): string | null => project?.serviceRoleKey ?? null,

    profile: (): Profile => ({
      profile_id: localProfileId,
      name: "Local project",
      url: project?.url ?? "",
      read_url: null,
      kind: "local",
      is_production: false,
      is_read_only: false,
      color: null,
      key_storage: "generated",
      added_at: (store.getSetting("local_added_at") as string | null) ?? now().toISOString(),
    }),

    /** Starts it unless it runs. Does not throw: `failure` answers why it did not start. */
    async ensure(): Promise<void> {
      if (project || !options.startLocalProject) return;
      failure = null;
      starting ??= start(options.startLocalProject);
      await starting;
    },

    trafficState: (): ConnectionState["sample_traffic"] => project?.sampleTraffic?.status() ?? null,
    /** Sample traffic goes on as it was when the console ended. */
    async resumeTraffic(): Promise<void> {
      const traffic = project?.sampleTraffic;
      if ((store.getSetting("sample_traffic") ?? traffic?.startsItself) !== false) await traffic?.start();
    },
    async pauseTraffic(): Promise<void> {
      await project?.sampleTraffic?.stop();
    },
    async setTraffic(isOn: boolean): Promise<Result<null, Failure>> {
      const traffic = project?.sampleTraffic;
      if (!traffic) return fail(notLocal);
      store.setSetting("sample_traffic", isOn);
      await (isOn ? traffic.start() : traffic.stop());
      return ok(null);
    },

    async close(): Promise<void> {
      isClosed = true;
      await starting;
      await project?.stop();
    },
  };
}

const keepsEnding: Failure = {
  code: "local_project_failed",
  message: "The local project keeps ending, so it was not started again.",
  advice: "Try again; if it ends again, look at the log. What you did is kept, and sent when it runs.",
  details: null,
};

export const notLocal: Failure = {
  code: "not_local",
  message: "Sample traffic exists in the local project alone; a connected project is never touched by it.",
  advice: "Choose the local project first.",
  details: null,
};
