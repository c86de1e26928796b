/** The console of one project: everything between its database and the screen, without Electron. Composes the desks. */
import {
  type About,
  type ConnectionState,
  type Intent,
  type Notice,
  type Profile,
  staysLive,
} from "../../../shared/contract/index.ts";
import type { openKeychain } from "../keychain/keychain.ts";
import { createBulkDriver } from "./users/bulk-driver.ts";
import { createCommands } from "./users/sent-once.ts";
import { followAlerts } from "./alerts/alerts.ts";
import { createConnection } from "./connection/connection.ts";
import type { Installer } from "./connection/setup.ts";
import { noUpdates, type Updates } from "./settings/updates.ts";
import type { StartLocalProject } from "./connection/local.ts";
import type { DeskContext } from "./desk-context.ts";
import { createDispatcher, type Dispatcher, type Log, type Sources } from "./dispatch.ts";
import { allHandlers } from "./handlers.ts";
import { createReconciliation } from "./finance/reconciliation.ts";
import type { StripeEndpoint } from "./finance/stripe-source-client.ts";
import { createConfiguration } from "./plans/plans.ts";
import { createPastJudge } from "./rules/past-judge.ts";
import { createReplay } from "./rules/replay.ts";
import { readSettings } from "./settings/settings.ts";
import type { Shared } from "./shared.ts";
import { createOutbox } from "./sync/outbox.ts";
import { waitingIntents } from "./sync/sync.ts";
import { createTopic } from "./topic.ts";
import { createFeed } from "./watch/feed.ts";
import { createRail, readStartCursor } from "./watch/rail.ts";

export interface ConsoleOptions {
  readonly dataDir: string;
  readonly host: About["host"];
  readonly version: string;
  /** Names of the migrations this console came with, in order. */
  readonly migrations: readonly string[];
  /** The reconciliation worker's entry where the program is bundled. */
  readonly reconciliationWorkerUrl?: URL;
  /** The entry of the replay's worker, likewise. */
  readonly replayWorkerUrl?: URL;
  /** The catalogue of public list prices, as YAML; left out: none. */
  readonly priceCatalogue?: string;
  /** The presets that this console came with, as YAML; left out: none. */
  readonly presets?: readonly { readonly name: string; readonly text: string }[];
  /** Left out where a project's database cannot be prepared from here. */
  readonly installer?: Installer;
  /** Left out where something else than this program brings its newer versions. */
  readonly updates?: Updates;
  /** Null where this console has no local project to offer. */
  readonly startLocalProject: StartLocalProject | null;
  readonly log: Log;
  readonly now?: () => Date;
  readonly openKeychain?: typeof openKeychain;
  /** For tests: a Stripe on this machine. */
  readonly stripeEndpoint?: StripeEndpoint;
}

/** All that a screen shows and asks of one project. */
export interface Console {
  readonly dispatcher: Dispatcher;
  /** The project that it works with; null while it has none. */
  project(): Profile | null;
  /** Begins to connect, to the project that was used last where none is named; answers before that is done. */
  start(profileId?: string): void;
  /** What would be cut off if the program ended now, in words; null where nothing would. */
  underWay(): string | null;
  /** Writes everything. Safe to call twice. */
  close(): Promise<void>;
}

/** Nothing is started before `start`. */
export function openConsole(
  options: ConsoleOptions,
  shared: Shared,
  showElsewhere: ((profileId: string) => void) | null,
): Console {
  const { log, now = () => new Date() } = options;
  const { store, note } = shared;
  const updates = options.updates ?? noUpdates(options.version);
  const notices = createTopic<Notice>();
  const alerts = followAlerts(now);
  const feed = createFeed(store);
  const outbox = createOutbox({
    store,
    now,
    onChange: () => {
      intents.publish(waitingIntents(desk));
      rail.refreshLocal();
    },
    onConflict: (intent) => notices.publish(inConflict(intent)),
  });
  const connection = createConnection({
    shared,
    showElsewhere,
    migrations: options.migrations,
    readNew: async (backend, profileId) => {
      const read = await feed.readNew(backend, () => readStartCursor(backend, profileId, feed));
      if (read.ok && connection.profileId() === profileId) rail.refreshSoon();
      return read;
    },
    sendPending: async (backend, profileId) => {
      await outbox.sendPending(profileId, backend);
      await commands.settleDoubts(profileId, backend);
      await bulk.resume(profileId, backend);
    },
    onSignal: (topic) => {
      rail.refreshSoon();
      if (topic === "alerts") alerts.wake();
    },
    onProfile: (profileId) => {
      feed.show(profileId);
      intents.publish(waitingIntents(desk));
      rail.reset();
    },
    onState: (state) => {
      states.publish(state);
      if (wasLive && state.status === "offline") notices.publish(connectionLost);
      wasLive = staysLive(wasLive, state.status);
    },
    now,
    log,
  });
  let wasLive = false;
  const states = createTopic<ConnectionState>(() => connection.state());
  const intents = createTopic<Intent[]>(() => waitingIntents(desk));
  const desk: DeskContext = { store, connection, outbox, now, operator: () => readSettings(store).operator };
  const commands = createCommands(desk, (notice) => notices.publish(notice));
  const bulk = createBulkDriver(desk, (notice) => notices.publish(notice));
  const reconciliation = createReconciliation({
    desk,
    dataDir: options.dataDir,
    workerUrl: options.reconciliationWorkerUrl ?? null,
    uploads: shared.uploads,
    keychain: shared.keychain,
    ...(options.stripeEndpoint ? { stripeEndpoint: options.stripeEndpoint } : {}),
    log,
    onChange: () => rail.refreshLocal(),
    notices,
  });
  const judge = createPastJudge({ workerUrl: options.replayWorkerUrl ?? null, log });
  const replay = createReplay({ desk, judge, log });
  const configuration = createConfiguration({ desk, judge, log, presets: options.presets ?? [] });
  const { openDifferences } = reconciliation;
  const rail = createRail({ desk, notices, alerts: alerts.topic, differences: openDifferences });

  const handlers = allHandlers({
    desk,
    commands,
    bulk,
    reconciliation,
    replay,
    configuration,
    rail,
    priceCatalogue: options.priceCatalogue,
    installer: options.installer ?? null,
    updates,
    shared,
    about: aboutOf(options, { path: shared.storePath, note }),
  });
  const sources: Sources = {
    connection: (_input, emit) => states.follow(emit),
    rail: (_input, emit) => rail.topic.follow(emit),
    alerts: (_input, emit) => alerts.topic.follow(emit),
    intents: (_input, emit) => intents.follow(emit),
    feed: ({ filter, after_event_id: after }, emit) => feed.follow(filter, after, emit),
    run: ({ run_id: runId }, emit) => reconciliation.follow(runId, emit),
    settings: (_input, emit) => shared.settings.follow(emit),
    updates: (_input, emit) => updates.follow(emit),
    replay: ({ run_id: runId }, emit) => replay.follow(runId, emit),
    simulation: ({ run_id: runId }, emit) => configuration.follow(runId, emit),
    notices: (_input, emit) => {
      if (note) emit(madeAnew(note));
      return notices.follow(emit);
    },
  };
  let isClosed = false;
  return {
    dispatcher: createDispatcher(handlers, sources, log),
    project: () => connection.state().profile,
    start: (profileId) => connection.start(profileId),
    underWay: () => underWay(reconciliation.isRunning(), bulk.isDriving()),
    async close() {
      if (isClosed) return;
      isClosed = true;
      rail.close();
      judge.close();
      await reconciliation.close();
      await connection.close();
    },
  };
}

function underWay(isReconciling: boolean, isOnMany: boolean): string | null {
  if (isReconciling) return "A reconciliation is running.";
  return isOnMany ? "An act on many users is being done." : null;
}

const madeAnew = (note: string): Notice => ({
  level: "warning",
  title: "The local store was created again",
  body: note,
});

const connectionLost: Notice = {
  level: "warning",
  title: "Connection lost",
  body: "What is shown is from the last contact. Flags, blocks and rule switches wait and are sent later.",
};

const inConflict = ({ summary }: Intent): Notice => ({
  level: "warning",
  title: "A change needs your decision",
  body: `${summary}: somebody else changed it in the meantime.`,
});

function aboutOf(
  { version, host, migrations }: ConsoleOptions,
  store: About["store"],
): Omit<About, "keychain"> {
  return { version, host, store, migrations: [...migrations] };
}
