/** The consoles of one data folder: one for each project that is open, in one process. */
import type { Failure, Profile } from "../../../shared/contract/index.ts";
import { projectHost } from "../../../shared/contract/links.ts";
import { ok, type Result } from "../../../shared/governance/result.ts";
import { openKeychain } from "../keychain/keychain.ts";
import { type Console, type ConsoleOptions, openConsole } from "./console.ts";
import { openShared } from "./shared.ts";

export interface Consoles {
  /**
   * The console that works with a project, started where none does; without a name the project that was used last.
   * Null where there is no such project.
   */
  open(profileId?: string): Console | null;
  /** Those that are open. */
  list(): readonly Console[];
  /** The known project at this host, such as `abc.supabase.co`, or `local`. */
  projectAt(host: string): Profile | null;
  /** Takes a file of this machine, for a reconciliation; answers the id that `finance.brought_file` knows it by. */
  bring(path: string): string;
  /** Called with a project that a person wants to see in a window of its own. */
  onShow(show: (profileId: string) => void): void;
  /** Lets a project go, unless something of it is under way. */
  release(console: Console): Promise<void>;
  underWay(): string | null;
  /** Writes everything and lets the data folder go. Safe to call twice. */
  close(): Promise<void>;
}

/** Opens the data folder. Nothing is started yet. */
export function openConsoles(options: ConsoleOptions): Result<Consoles, Failure> {
  const { dataDir, startLocalProject, log, now = () => new Date() } = options;
  const opened = openShared({
    dataDir,
    startLocalProject,
    openKeychain: options.openKeychain ?? openKeychain,
    now,
    log,
  });
  if (!opened.ok) return opened;
  const shared = opened.value;
  const consoles = new Set<Console>();
  let show: ((profileId: string) => void) | null = null;
  let closing: Promise<void> | null = null;

  async function closeAll(): Promise<void> {
    await Promise.all([...consoles].map((each) => each.close()));
    await shared.close();
  }

  return ok({
    open(profileId) {
      const known = [...consoles].find((each) => profileId && each.project()?.profile_id === profileId);
      if (known) return known;
      if (profileId !== undefined && !shared.profiles.find(profileId)) return null;
      const made = openConsole(options, shared, show === null ? null : (id) => show?.(id));
      consoles.add(made);
      made.start(profileId);
      return made;
    },
    list: () => [...consoles],
    projectAt: (host) =>
      shared.profiles.list().find((each) => projectHost(each) === host.toLowerCase()) ?? null,
    bring: (path) => shared.uploads.bring(path),
    onShow(wanted) {
      show = wanted;
    },
    async release(console) {
      if (console.underWay() !== null || consoles.size === 1) return;
      consoles.delete(console);
      await console.close();
    },
    underWay: () => [...consoles].map((each) => each.underWay()).find((words) => words !== null) ?? null,
    close: () => (closing ??= closeAll()),
  });
}

/** One console that holds its data folder alone, for a host with one project at a time. */
export function createConsole(options: ConsoleOptions): Result<Console, Failure> {
  const { now = () => new Date(), openKeychain: open = openKeychain } = options;
  const opened = openShared({ ...options, openKeychain: open, now });
  if (!opened.ok) return opened;
  const console = openConsole(options, opened.value, null);
  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    await console.close();
    await opened.value.close();
  };
  return ok({ ...console, close: () => (closing ??= close()) });
}
