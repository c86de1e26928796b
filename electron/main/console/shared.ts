/** What all projects of one data folder share: the store, the keys, what is known of each project, and who works with it. */
import type { Failure, Profile, Settings } from "../../../shared/contract/index.ts";
import { ok, type Result } from "../../../shared/governance/result.ts";
import {
  type Keychain,
  type KeychainKind,
  type openKeychain,
  withSessionKeys,
} from "../keychain/keychain.ts";
import { openStore, type Store } from "../store/store.ts";
import { keepLocalProject, type Local, type StartLocalProject } from "./connection/local.ts";
import { keepProfiles, type Profiles } from "./connection/profiles.ts";
import type { Log } from "./dispatch.ts";
import { createUploads, type Uploads } from "./finance/uploads.ts";
import { readSettings } from "./settings/settings.ts";
import { createTopic, type Topic } from "./topic.ts";

interface SharedOptions {
  readonly dataDir: string;
  readonly startLocalProject: StartLocalProject | null;
  readonly openKeychain: typeof openKeychain;
  readonly now: () => Date;
  readonly log: Log;
}

/** A console's connection, as the others see it. */
export interface Holder {
  profileId(): string | null;
  /** Its project was changed; `isAnew`: it is connected to again. */
  become(profile: Profile, isAnew: boolean): Promise<void>;
  /** Turns from its project to one that nobody works with, if there is one. */
  leave(): Promise<void>;
  /** The local project's folder was created again. */
  noteAnotherLocal(): void;
  /** The local project ended by itself; `failure`: why it is not started again. */
  noteLocalEnd(failure: Failure | null): void;
}

export interface Shared {
  readonly store: Store;
  readonly storePath: string;
  /** What a person should know about how the store was opened. */
  readonly note: string | null;
  readonly keychain: () => Promise<Keychain>;
  readonly local: Local;
  readonly profiles: Profiles;
  readonly uploads: Uploads;
  readonly settings: Topic<Settings>;
  /** One for each console that is open. No two work with the same project. */
  readonly connections: Set<Holder>;
  holderOf(profileId: string): Holder | null;
  close(): Promise<void>;
}

export function openShared(options: SharedOptions): Result<Shared, Failure> {
  const { dataDir, now, log } = options;
  const opened = openStore(dataDir, now);
  if (!opened.ok) return opened;
  const { store, path, note } = opened.value;
  if (note) log(note);
  const connections = new Set<Holder>();
  const keychain = openAtNeed(store, options.openKeychain);
  const local = keepLocalProject({
    store,
    startLocalProject: options.startLocalProject,
    now,
    log,
    onAnother: () => connections.forEach((each) => each.noteAnotherLocal()),
    onEnd: (failure) => connections.forEach((each) => each.noteLocalEnd(failure)),
  });
  const uploads = createUploads(dataDir);
  return ok({
    store,
    storePath: path,
    note,
    keychain,
    local,
    profiles: keepProfiles({ store, keychain, local, now }),
    uploads,
    settings: createTopic<Settings>(() => readSettings(store)),
    connections,
    holderOf: (profileId) => [...connections].find((each) => each.profileId() === profileId) ?? null,
    async close() {
      uploads.close();
      await local.close();
      store.close();
    },
  });
}

/** The keychain, opened at first need: asking one may make the system ask the person. */
function openAtNeed(store: Store, open: typeof openKeychain): () => Promise<Keychain> {
  let keychain: Promise<Keychain> | null = null;
  return () => {
    keychain ??= open({
      service: "Token Governance",
      remembered: store.getSetting("keychain") as KeychainKind | null,
    }).then((found) => {
      if (found.kind !== "none") store.setSetting("keychain", found.kind);
      return withSessionKeys(found);
    });
    return keychain;
  };
}
