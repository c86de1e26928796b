/** The console: everything between the database and the screen, without Electron. Composes the desks. */
import {
  type About,
  type ConnectionState,
  type Failure,
  type Intent,
  type Notice,
  type RailCounts,
} from "../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../shared/governance/result.ts";
import { redact } from "../backend/redact.ts";
import { type Keychain, type KeychainKind, openKeychain } from "../keychain/keychain.ts";
import { openStore } from "../store/store.ts";
import { createBulk } from "./users/bulk.ts";
import { createCorrections } from "./users/corrections.ts";
import { historyHandlers } from "./users/history.ts";
import { userHandlers } from "./users/users.ts";
import { alertHandlers } from "./alerts/alerts.ts";
import { costsHandlers } from "./costs/costs.ts";
import { healthHandlers } from "./health/health.ts";
import { auditHandlers } from "./audit/audit.ts";
import { createConnection, type StartLocalProject } from "./connection/connection.ts";
import type { DeskContext } from "./desk-context.ts";
import { createDispatcher, type Dispatcher, type Handlers, type Log, type Sources } from "./dispatch.ts";
import { financeHandlers } from "./finance/finance.ts";
import { createReconciliation } from "./finance/reconciliation.ts";
import type { StripeEndpoint } from "./finance/stripe-source-client.ts";
import { actHandlers } from "./acts.ts";
import { priceHandlers, readCatalogue } from "./rules/prices.ts";
import { createReplay } from "./rules/replay.ts";
import { ruleHandlers } from "./rules/rules.ts";
import { readSettings, writeSettings } from "./settings/settings.ts";
import { createOutbox } from "./sync/outbox.ts";
import { createTopic } from "./topic.ts";
import { createFeed } from "./watch/feed.ts";
import { createRail, readStartCursor } from "./watch/rail.ts";
import { watchHandlers } from "./watch/watch.ts";

export interface ConsoleOptions {
  readonly dataDir: string;
  readonly host: About["host"];
  readonly version: string;
  /** Names of the migrations this console came with, in order. */
  readonly migrations: readonly string[];
  /** The reconciliation worker's entry where the program is bundled. */
  readonly reconciliationWorkerUrl?: URL;
  /** The same of the replay's. */
  readonly replayWorkerUrl?: URL;
  /** The catalogue of public list prices, as YAML; left out: none. */
  readonly priceCatalogue?: string;
  /** Null where this console has no local project to offer. */
  readonly startLocalProject: StartLocalProject | null;
  readonly log: Log;
  readonly now?: () => Date;
  readonly openKeychain?: typeof openKeychain;
  /** For tests: a Stripe on this machine. */
  readonly stripeEndpoint?: StripeEndpoint;
}

export interface Console {
  readonly dispatcher: Dispatcher;
  /** Begins to connect; answers before that is done. */
  start(): void;
  /** Writes everything and lets the data folder go. Safe to call twice. */
  close(): Promise<void>;
}

/** Wake-ups come at most every few hundred milliseconds. */
const afterSignalMs = 700;

/** Opens the data folder. Nothing is started before `start`. */
export function createConsole(options: ConsoleOptions): Result<Console, Failure> {
  const { log, now = () => new Date() } = options;
  const opened = openStore(options.dataDir, now);
  if (!opened.ok) return opened;
  const { store, path, note } = opened.value;
  if (note) log(note);

  // Opened at first need: asking a keychain may make the system ask the person.
  let keychain: Promise<Keychain> | null = null;
  const getKeychain = (): Promise<Keychain> => {
    keychain ??= (options.openKeychain ?? openKeychain)({
      service: "Token Governance",
      remembered: store.getSetting("keychain") as KeychainKind | null,
    }).then((found) => {
      if (found.kind !== "none") store.setSetting("keychain", found.kind);
      return found;
    });
    return keychain;
  };

  const notices = createTopic<Notice>();
  const alertsChanged = createTopic<{ at: string }>(() => ({ at: now().toISOString() }));
  const feed = createFeed(store);
  const outbox = createOutbox({
    store,
    now,
    onChange: (list) => {
      intents.publish(list);
      rail.refreshLocal();
    },
    onConflict: (intent) =>
      notices.publish({
        level: "warning",
        title: "A change needs your decision",
        body: `${intent.summary}: somebody else changed it in the meantime.`,
      }),
  });
  const connection = createConnection({
    store,
    keychain: getKeychain,
    startLocalProject: options.startLocalProject,
    migrations: options.migrations,
    readNew: async (backend, profileId) => {
      const read = await feed.readNew(backend, () => readStartCursor(backend, feed));
      if (read.ok && connection.profileId() === profileId) rail.refreshSoon();
      return read;
    },
    sendPending: async (backend, profileId) => {
      await outbox.sendPending(profileId, backend);
      await corrections.settleDoubts(profileId, backend);
      await bulk.resume(profileId, backend);
    },
    onSignal: (topic) => {
      rail.refreshSoon(topic === "alerts");
      if (topic !== "alerts") return;
      alertsChanged.publish({ at: now().toISOString() });
      // What is raised right after a wake-up has none of its own.
      setTimeout(() => alertsChanged.publish({ at: now().toISOString() }), afterSignalMs).unref();
    },
    onProfile: (profileId) => {
      feed.show(profileId);
      intents.publish(profileId === null ? [] : outbox.list(profileId));
      rail.reset();
    },
    onState: (state) => {
      const before = lastState?.status;
      lastState = state;
      states.publish(state);
      if (before === "live" && state.status === "offline") {
        notices.publish({
          level: "warning",
          title: "Connection lost",
          body: "What is shown is from the last contact. Flags, blocks and rule switches wait and are sent later.",
        });
      }
    },
    now,
    log,
  });
  let lastState: ConnectionState | null = null;
  const states = createTopic<ConnectionState>(() => connection.state());
  const currentIntents = (): Intent[] => {
    const profileId = connection.profileId();
    return profileId === null ? [] : outbox.list(profileId);
  };
  const intents = createTopic<Intent[]>(currentIntents);
  const desk: DeskContext = { store, connection, outbox, now, operator: () => readSettings(store).operator };
  const corrections = createCorrections(desk, (notice) => notices.publish(notice));
  const bulk = createBulk(desk, corrections, (notice) => notices.publish(notice));
  const reconciliation = createReconciliation({
    desk,
    dataDir: options.dataDir,
    workerUrl: options.reconciliationWorkerUrl ?? null,
    keychain: getKeychain,
    ...(options.stripeEndpoint ? { stripeEndpoint: options.stripeEndpoint } : {}),
    log,
    onChange: () => rail.refreshLocal(),
    notices,
  });
  const replay = createReplay({ desk, workerUrl: options.replayWorkerUrl ?? null, log });
  const rail = createRail({ desk, notices, differences: reconciliation.openDifferences });
  const rails = rail.topic satisfies { follow(emit: (item: RailCounts) => void): () => void };

  const handlers: Handlers = {
    "connection.state": () => ok(connection.state()),
    "connection.profiles": () => ok(connection.listProfiles()),
    "connection.check": async ({ url, key, read_url: readUrl }) => {
      const checked = await connection.check(url, key, readUrl);
      if (!checked.ok) return checked;
      const { project, missing_migrations } = checked.value;
      return ok({ role: "service_role", project, missing_migrations: [...missing_migrations] });
    },
    "connection.add": (input) => connection.add(input),
    "connection.select": ({ profile_id: profileId }) => connection.choose(profileId),
    "connection.remove": async ({ profile_id: profileId }) => {
      const removed = await connection.remove(profileId);
      if (removed.ok) await reconciliation.forgetProject(profileId);
      return removed.ok ? ok({}) : removed;
    },
    "connection.retry": () => connection.retry(),
    "connection.sample_traffic": ({ running }) => connection.setSampleTraffic(running),
    ...watchHandlers(desk),
    ...alertHandlers(desk),
    ...auditHandlers(desk),
    ...costsHandlers(desk),
    ...healthHandlers(desk, options.migrations),
    ...userHandlers(desk),
    ...historyHandlers(desk),
    ...actHandlers(desk),
    ...corrections.handlers,
    ...bulk.handlers,
    ...ruleHandlers(desk),
    ...replay.handlers,
    ...priceHandlers(desk, readCatalogue(options.priceCatalogue ?? "prices: []")),
    ...reconciliation.handlers,
    ...financeHandlers(desk, () => rail.refreshSoon()),
    "sync.intents": () => ok(currentIntents()),
    "sync.resolve": async ({ command_id: commandId, choice }) => {
      const profileId = connection.profileId();
      if (profileId === null) return ok([]);
      const resolved = await outbox.resolve(profileId, connection.backend(), commandId, choice);
      if (resolved.ok) connection.wake();
      return resolved;
    },
    "settings.get": () => ok(readSettings(store)),
    "settings.set": (change) => {
      if (change.time_zone !== undefined && !isTimeZone(change.time_zone)) return fail(unknownZone);
      return ok(writeSettings(store, change as Parameters<typeof writeSettings>[1]));
    },
    "settings.about": async () => {
      const { kind, note: keychainNote } = await getKeychain();
      return ok({
        version: options.version,
        host: options.host,
        keychain: { kind, note: keychainNote && redact(keychainNote) },
        store: { path, note },
        migrations: [...options.migrations],
      });
    },
  };
  const sources: Sources = {
    connection: (_input, emit) => states.follow(emit),
    rail: (_input, emit) => rails.follow(emit),
    alerts: (_input, emit) => alertsChanged.follow(emit),
    intents: (_input, emit) => intents.follow(emit),
    feed: ({ filter, after_event_id: after }, emit) => feed.follow(filter, after, emit),
    run: ({ run_id: runId }, emit) => reconciliation.follow(runId, emit),
    replay: ({ run_id: runId }, emit) => replay.follow(runId, emit),
    notices: (_input, emit) => {
      if (note) emit({ level: "warning", title: "The local store was made anew", body: note });
      return notices.follow(emit);
    },
  };

  let isClosed = false;
  return ok({
    dispatcher: createDispatcher(handlers, sources, log),
    start: () => connection.start(),
    async close() {
      if (isClosed) return;
      isClosed = true;
      rail.close();
      replay.close();
      await reconciliation.close();
      await connection.close();
      store.close();
    },
  });
}

/** `local` (the viewer's), `user` (each user's own), or a name of the time zone database. */
function isTimeZone(name: string): boolean {
  if (name === "local" || name === "user") return true;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== "";
  } catch {
    return false;
  }
}

const unknownZone: Failure = {
  code: "invalid_argument",
  message: "There is no such time zone.",
  advice: "Choose local, user, or a name such as Europe/London.",
  details: null,
};
