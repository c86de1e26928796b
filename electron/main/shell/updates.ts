/**
 * Newer versions: looked for now and then, fetched, and put in place when the program ends or a person asks for it, never
 * while something is under way. What was done and not sent yet is in the outbox on the disk, and the next version sends it.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AppUpdater, UpdateCheckResult } from "electron-updater";
import { z } from "zod";
import { type Failure, updateChannel, type UpdateState } from "../../../shared/contract/index.ts";
import { fail, ok } from "../../../shared/governance/result.ts";
import type { Log } from "../console/dispatch.ts";
import { noUpdates, updatesOff, type Updates } from "../console/settings/updates.ts";

interface UpdatesOptions {
  readonly dataDir: string;
  /** Holds app-update.yml, which names the server. */
  readonly resourcesDir: string;
  /** Holds build/update-key.pem: whose feeds are accepted. */
  readonly appDir: string;
  readonly isPackaged: boolean;
  readonly version: string;
  readonly log: Log;
  /** What would be cut off, in words. */
  readonly underWay: () => string | null;
  /** Lets everything be written; after it the program only ends. */
  readonly end: () => Promise<void>;
}

const firstCheckMs = 15_000;
const checkEveryMs = 4 * 3_600_000;

const chosen = z.object({
  channel: updateChannel.catch("stable"),
  stays_at: z.string().nullable().catch(null),
});
type Chosen = z.infer<typeof chosen>;

export interface ShellUpdates extends Updates {
  /** Begins to look for newer versions. */
  start(): void;
}

/** Off where this is no installed program, or one that was built without a server or a key. */
export function createUpdates(options: UpdatesOptions): ShellUpdates {
  const keyPath = join(options.appDir, "build/update-key.pem");
  const feedPath = join(options.resourcesDir, "app-update.yml");
  const off = (why: string): ShellUpdates => ({ ...noUpdates(options.version, why), start: () => {} });
  if (!options.isPackaged) return off("It runs from a folder: a newer version comes with that.");
  if (!existsSync(keyPath))
    return off("This build has no key to check newer versions by, so it fetches none.");
  if (!existsSync(feedPath)) return off("This build names no server for newer versions.");
  return followFeed(options, readFileSync(keyPath, "utf8"), feedPath);
}

function followFeed(options: UpdatesOptions, publicKey: string, feedPath: string): ShellUpdates {
  const { log, version: current } = options;
  const choices = keepChoices(join(options.dataDir, "updates.json"));
  const followers = new Set<(state: UpdateState) => void>();
  let state: UpdateState = { ...updatesOff(current, ""), why: null, status: "idle", ...choices.read() };
  let updater: Promise<AppUpdater> | null = null;
  let isRestarting = false;
  /** What a person chose, counted, and for which choice the last look was: nothing of another is shown or put in place. */
  let choice = 0;
  let looksFor = 0;
  const fits = (): boolean => looksFor === choice;
  /** The last look, and with it what it fetches. */
  let looking: Promise<UpdateCheckResult | null> = Promise.resolve(null);

  function become(change: Partial<UpdateState>): void {
    state = { ...state, ...change };
    for (const emit of followers) emit(state);
  }

  async function load(): Promise<AppUpdater> {
    const { openUpdater } = await import("./updater.ts");
    const made = openUpdater({
      feedPath,
      publicKey,
      log,
      onEarlier: (earlier) => become({ earlier: earlier.filter((each) => each !== current) }),
    });
    listen(made, { log, fits, state: () => state, become });
    return made;
  }

  async function check(): Promise<UpdateState> {
    if (state.status !== "idle") return state;
    become({ status: "checking", failure: null });
    looksFor = choice;
    looking = look();
    await looking;
    return state;
  }

  /** Answers with what it fetches, which goes on; how that ends comes as an event. */
  async function look(): Promise<UpdateCheckResult | null> {
    try {
      const found = await (updater ??= load());
      found.channel = state.stays_at ?? (state.channel === "beta" ? "beta" : "latest");
      // The channel's setter allows an older version: that is for a person's own choice alone.
      found.allowDowngrade = state.stays_at !== null;
      const checked = await found.checkForUpdates();
      checked?.downloadPromise?.catch(() => {});
      if (fits()) become({ checked_at: new Date().toISOString() });
      return checked;
    } catch (error) {
      if (fits()) become({ status: "idle", failure: failureOf(error as Error) });
      return null;
    }
  }

  async function choose(change: Partial<Chosen>): Promise<UpdateState> {
    choices.write({ ...choices.read(), ...change });
    const mine = ++choice;
    become({
      ...choices.read(),
      status: "checking",
      version: null,
      notes: null,
      progress: null,
      failure: null,
    });
    // What was fetched for the other choice is not put in place, also where the program ends now.
    const found = await updater?.catch(() => null);
    if (found) found.autoInstallOnAppQuit = false;
    // While a look or what it fetches is under way, electron-updater answers another look with that.
    const last = await looking;
    last?.cancellationToken?.cancel();
    await last?.downloadPromise?.catch(() => {});
    if (mine !== choice) return state;
    become({ status: "idle" });
    return check();
  }

  return {
    follow(emit) {
      followers.add(emit);
      emit(state);
      return () => void followers.delete(emit);
    },
    start() {
      setTimeout(() => void check(), firstCheckMs).unref();
      setInterval(() => void check(), checkEveryMs).unref();
    },
    check,
    setChannel: (channel) => choose({ channel, stays_at: null }),
    stayAt: (version) => choose({ stays_at: version }),
    async restart() {
      if (state.status !== "ready") return fail(notReady);
      const underWay = options.underWay();
      if (underWay !== null) return fail(busy(underWay));
      // After this call's own answer, and once, however often it is asked for: electron-updater takes a second time for
      // undoing the first, and puts the version in place again as the program ends, when it has none to put there.
      if (!isRestarting) setTimeout(() => void putInPlace(), 200);
      isRestarting = true;
      return ok({});
    },
  };

  async function putInPlace(): Promise<void> {
    const found = await updater;
    if (!found) return;
    await options.end();
    found.quitAndInstall(true, true);
  }
}

/** What electron-updater says is the state, while it is about what a person chose. */
function listen(
  made: AppUpdater,
  heard: {
    readonly log: Log;
    readonly fits: () => boolean;
    readonly state: () => UpdateState;
    readonly become: (change: Partial<UpdateState>) => void;
  },
): void {
  const hear = (change: Partial<UpdateState>): void => {
    if (heard.fits()) heard.become(change);
  };
  made.on("update-available", ({ version, releaseNotes }) =>
    hear({ status: "downloading", version, notes: textOf(releaseNotes), progress: 0, failure: null }),
  );
  made.on("download-progress", ({ percent }) => hear({ progress: Math.min(Math.max(percent / 100, 0), 1) }));
  made.on("update-downloaded", ({ version }) => {
    // electron-updater asks for it after this event, and once more as the program ends.
    made.autoInstallOnAppQuit = heard.fits();
    hear({ status: "ready", version, progress: null });
  });
  made.on("update-not-available", () => hear({ status: "idle", version: null, notes: null }));
  made.on("error", (error) => {
    heard.log(`A newer version could not be had: ${error.message.slice(0, 500)}`);
    if (heard.state().status !== "ready") hear({ status: "idle", progress: null, failure: failureOf(error) });
  });
}

/** What a person chose, beside the window's state: it belongs to the program, not to a project. */
function keepChoices(path: string) {
  return {
    read(): Chosen {
      try {
        return chosen.parse(JSON.parse(readFileSync(path, "utf8")));
      } catch {
        return { channel: "stable", stays_at: null };
      }
    },
    write(value: Chosen): void {
      writeFileSync(`${path}.new`, JSON.stringify(value));
      renameSync(`${path}.new`, path);
    },
  };
}

function textOf(notes: unknown): string | null {
  if (typeof notes === "string") return notes.slice(0, 20_000);
  if (!Array.isArray(notes)) return null;
  return (notes as { note?: string | null }[])
    .map(({ note }) => note ?? "")
    .join("\n\n")
    .slice(0, 20_000);
}

function failureOf(error: Error & { code?: string }): Failure {
  const isForged = error.code === "ERR_UPDATER_FEED_SIGNATURE" || error.code === "ERR_CHECKSUM_MISMATCH";
  return isForged
    ? {
        code: "not_genuine",
        message: "What the server offers is not signed by the maker of this program, so it was not taken.",
        advice: "Tell whoever looks after your installation.",
        details: error.message.slice(0, 500),
      }
    : {
        code: "update_failed",
        message: "A newer version could not be fetched.",
        advice: "It is tried again later; the one you have goes on working.",
        details: error.message.slice(0, 500),
      };
}

const notReady: Failure = {
  code: "no_update",
  message: "No newer version is ready.",
  advice: null,
  details: null,
};
const busy = (words: string): Failure => ({
  code: "under_way",
  message: words,
  advice: "Restart when it is done. The new version is also put in place when you quit.",
  details: null,
});
