/**
 * Everything the screen may ask of the console, and every stream it may follow: the only door between them.
 * Inputs are parsed where they arrive, outputs where they leave; both transports (Electron ipc, WebSocket) use
 * this map and nothing else.
 *
 * Expected failures are values: every operation answers a {@link Result}.
 */
import { z } from "zod";
import * as finance from "./finance.ts";
import * as records from "./records.ts";

/** Why something could not be done, for a person: one sentence, and what to do. */
export const failure = z.object({
  /** Stable word, e.g. `offline`, `invalid_argument`, `version_conflict`, `wrong_key`. */
  code: z.string(),
  message: z.string(),
  /** What the person can do about it. */
  advice: z.string().nullable(),
  /** Technical details to copy into a ticket; never a secret. */
  details: z.string().nullable(),
});
export type Failure = z.infer<typeof failure>;
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: Failure };

const userId = z.string().min(1).max(500);
const commandId = z.uuid();
/** Operators give a reason with each action on a user; it is audited. */
const reason = z.string().trim().min(3, "Give a reason of at least 3 characters.").max(1000);
const nothing = z.object({}).strict();
const done = z.object({}).loose();

export const profile = z.object({
  profile_id: z.string(),
  name: z.string(),
  url: z.string(),
  /** local: the embedded project on this machine. supabase: a project a person connected. */
  kind: z.enum(["local", "supabase"]),
  is_production: z.boolean(),
  /** session: no keychain here, the key is forgotten when the console ends. generated: the local project's own. */
  key_storage: z.enum(["keychain", "session", "generated", "missing"]),
  added_at: records.instant,
});
export type Profile = z.infer<typeof profile>;

export const connectionState = z.object({
  profile: profile.nullable(),
  status: z.enum(["starting", "connecting", "catching_up", "live", "offline", "refused"]),
  /** Since when it is in this status. */
  since: records.instant,
  /** Why offline or refused. */
  failure: failure.nullable(),
  project: records.projectInfo.nullable(),
  /** Last time anything was read from the project: how old what is shown may be. */
  last_sync_at: records.instant.nullable(),
  /** Sample traffic: null where the project has none. */
  sample_traffic: z
    .object({
      running: z.boolean(),
      calls: records.whole,
      filling: z.number().min(0).max(1).nullable(),
      /** Where Stripe's exports for the sample's purchases lie; null while they are not written. */
      stripe_folder: z.string().nullish(),
      /** Why there is no sample data, in one sentence. */
      problem: z.string().nullish(),
    })
    .nullable(),
});
export type ConnectionState = z.infer<typeof connectionState>;

/** Filter of the live feed; an absent key means all. */
export const feedFilter = z
  .object({
    user_id: userId.optional(),
    decision: records.decision.optional(),
    reason: z.string().max(200).optional(),
    model: z.string().max(200).optional(),
    kinds: z.array(records.usageEvent.shape.kind).max(6).optional(),
  })
  .strict();
export type FeedFilter = z.infer<typeof feedFilter>;

/** An operator's act, kept durably until the project has acknowledged it. */
export const intent = z.object({
  command_id: z.string(),
  kind: z.enum([
    "flag_user",
    "block_user",
    "unblock_user",
    "set_rule_mode",
    "save_rule",
    "acknowledge_alert",
  ]),
  /** User id, rule name or the alert's number. */
  subject: z.string(),
  summary: z.string(),
  status: z.enum(["pending", "acknowledged", "conflict", "failed", "expired"]),
  created_at: records.instant,
  expires_at: records.instant,
  attempts: records.whole,
  failure: failure.nullable(),
  /** For a conflict: what the operator saw, wants, and what the project has now. */
  base: z.unknown(),
  mine: z.unknown(),
  theirs: z.unknown(),
});
export type Intent = z.infer<typeof intent>;

export const upload = z.object({
  upload_id: z.string(),
  file_name: z.string(),
  size_bytes: records.whole,
  received_bytes: records.whole,
  sha256: z.string().nullable(),
});

export type Upload = z.infer<typeof upload>;

export const reconciliationRun = z.object({
  run_id: z.string(),
  started_at: records.instant,
  finished_at: records.instant.nullable(),
  status: z.enum(["running", "finished", "failed", "cancelled"]),
  phase: z.string(),
  stripe_rows: records.whole,
  ledger_rows: records.whole,
  /** 0–1 as far as it can be known. */
  progress: z.number().min(0).max(1).nullable(),
  file_names: z.array(z.string()),
  from: z.string().nullable(),
  to: z.string().nullable(),
  differences: records.whole.nullable(),
  tied_out: z.boolean().nullable(),
  /** The project's own time as of which the ledger was read. */
  ledger_read_at: records.instant.nullish(),
  failure: failure.nullable(),
});
export type ReconciliationRun = z.infer<typeof reconciliationRun>;

/** A permission of a restricted key of Stripe's: as the dashboard's form and as the API calls it. */
export const stripePermission = z.object({ row: z.string(), name: z.string(), is_granted: z.boolean() });
/** What Stripe says of a key. */
export const stripeKeyCheck = z.object({
  account_id: z.string(),
  account_name: z.string().nullable(),
  mode: z.enum(["live", "test"]),
  permissions: z.array(stripePermission),
});
export type StripeKeyCheck = z.infer<typeof stripeKeyCheck>;
/** The Stripe account that a project is reconciled with by the API. The key itself never comes here. */
export const stripeConnection = stripeKeyCheck.omit({ permissions: true }).extend({
  key_storage: z.enum(["keychain", "session", "missing"]),
  connected_at: records.instant,
  /** Until when everything was read; null before the first time. */
  data_through: records.instant.nullable(),
  /** Objects kept here. */
  objects: records.whole,
});
export type StripeConnection = z.infer<typeof stripeConnection>;

/** Something worth interrupting a person for. */
export const notice = z.object({
  level: z.enum(["info", "warning", "error"]),
  title: z.string(),
  body: z.string(),
});
export type Notice = z.infer<typeof notice>;

export const settings = z.object({
  /** Name that audit entries carry. */
  operator: z.string().trim().min(1).max(200),
  theme: z.enum(["system", "light", "dark"]),
  notifications: z.boolean(),
  /** Where times are shown: `local` (the viewer's zone), `user` (each user's own), or a name such as `UTC`. */
  time_zone: z.string().max(100),
});
export type Settings = z.infer<typeof settings>;

export const about = z.object({
  version: z.string(),
  host: z.enum(["electron", "browser"]),
  keychain: z.object({ kind: z.enum(["keytar", "napi-keyring", "none"]), note: z.string().nullable() }),
  store: z.object({ path: z.string(), note: z.string().nullable() }),
  migrations: z.array(z.string()),
});

export type About = z.infer<typeof about>;

export const railCounts = z.object({
  open_alerts: records.whole,
  flagged: records.whole,
  blocked: records.whole,
  pending: records.whole,
  conflicts: records.whole,
  differences: records.whole,
});
export type RailCounts = z.infer<typeof railCounts>;

const actOnUser = z.object({ command_id: commandId, user_id: userId, reason }).strict();
/** After an act: the intent, and the account as the project now has it (null while it waits in the outbox). */
const acted = z.object({ intent, account: records.accountState.nullable() });
const actedOnRule = z.object({ intent, rule: records.rule.nullable() });

function operation<I extends z.ZodType, O extends z.ZodType>(input: I, output: O) {
  return { input, output };
}

export const operations = {
  "connection.state": operation(nothing, connectionState),
  "connection.profiles": operation(nothing, z.array(profile)),
  /** Tries a URL and key without keeping them; every way it can fail is a failure of its own. */
  "connection.check": operation(
    z.object({ url: z.string().trim().max(2000), key: z.string().trim().max(10_000) }).strict(),
    z.object({ role: z.string(), project: records.projectInfo, missing_migrations: z.array(z.string()) }),
  ),
  "connection.add": operation(
    z
      .object({
        name: z.string().trim().min(1).max(200),
        url: z.string().trim().max(2000),
        key: z.string().trim().max(10_000),
        is_production: z.boolean(),
      })
      .strict(),
    profile,
  ),
  "connection.select": operation(z.object({ profile_id: z.string() }).strict(), connectionState),
  "connection.remove": operation(z.object({ profile_id: z.string() }).strict(), done),
  "connection.retry": operation(nothing, connectionState),
  /** Starts or stops the sample traffic of the local project; refused for any other. */
  "connection.sample_traffic": operation(z.object({ running: z.boolean() }).strict(), connectionState),

  "watch.overview": operation(
    z.object({ minutes: z.number().int().min(5).max(1440) }).strict(),
    records.overview,
  ),
  /** A page of past events, newest first. */
  "watch.history": operation(
    z
      .object({
        filter: feedFilter,
        before_event_id: records.whole.nullable(),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    z.object({ events: z.array(records.usageEvent), next_before_event_id: records.whole.nullable() }),
  ),
  "decisions.explain": operation(z.object({ decision_id: records.whole }).strict(), records.receipt),

  /** A page of alerts that were raised, newest first. */
  "alerts.list": operation(
    z
      .object({
        /** open: nobody has seen to them yet. undelivered: a message about them was given up. */
        show: z.enum(["open", "all", "undelivered"]),
        before_id: records.whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    records.alertPage.extend({ as_of: records.instant.nullable() }),
  ),
  /** The alerts that are set, with how far each has come. */
  "alerts.set": operation(
    nothing,
    z.object({ alerts: z.array(records.costAlert), as_of: records.instant.nullable() }),
  ),
  "alerts.acknowledge": operation(
    z.object({ command_id: commandId, alert_event_id: records.whole }).strict(),
    z.object({ intent }),
  ),
  /** Has a message that was given up sent again. */
  "alerts.send_again": operation(
    z.object({ command_id: commandId, notification_id: records.whole }).strict(),
    done,
  ),

  "accounts.search": operation(
    z
      .object({
        query: z.string().max(500),
        filter: records.accountFilter,
        plan_id: z.string().max(200).nullable(),
        sort: records.accountSort,
        descending: z.boolean(),
        cursor: z.string().max(2000).nullable(),
        limit: z.number().int().min(1).max(100),
      })
      .strict(),
    records.accountPage.extend({
      /** From the local store while offline: what was seen, and when. */
      as_of: records.instant.nullable(),
    }),
  ),
  "accounts.get": operation(
    z.object({ user_id: userId }).strict(),
    records.accountDetail.extend({ as_of: records.instant.nullable() }),
  ),
  "accounts.usage": operation(
    z.object({ user_id: userId, from: z.iso.date(), to: z.iso.date() }).strict(),
    records.accountUsage,
  ),
  "accounts.ledger": operation(
    z
      .object({
        user_id: userId,
        before_id: records.whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ entries: z.array(records.ledgerEntry), next_before_id: records.whole.nullable() }),
  ),
  "accounts.decisions": operation(
    z
      .object({
        user_id: userId,
        before_id: records.whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ decisions: z.array(records.decisionRow), next_before_id: records.whole.nullable() }),
  ),
  "accounts.flag": operation(actOnUser, acted),
  "accounts.block": operation(actOnUser.extend({ until: records.instant.nullable() }), acted),
  "accounts.unblock": operation(actOnUser, acted),

  "rules.list": operation(nothing, z.object({ rules: z.array(records.rule), as_of: records.instant })),
  "rules.set_mode": operation(
    z
      .object({
        command_id: commandId,
        rule_name: z.string().max(200),
        mode: records.ruleMode,
        expected_version: records.whole,
      })
      .strict(),
    actedOnRule,
  ),

  "reconciliation.open_upload": operation(
    z
      .object({
        file_name: z.string().min(1).max(500),
        size_bytes: z.number().int().min(0).max(4_000_000_000),
      })
      .strict(),
    upload,
  ),
  /** Base64 of at most 1 MiB of bytes, in order. */
  "reconciliation.upload_chunk": operation(
    z
      .object({ upload_id: z.string(), offset_bytes: records.whole, base64: z.string().max(1_400_000) })
      .strict(),
    upload,
  ),
  "reconciliation.start": operation(
    z
      .object({
        upload_ids: z.array(z.string()).max(50),
        /** Also reads the connected Stripe account; it needs both ends of the period. */
        stripe_api: z.boolean().optional(),
        from: z.iso.date().nullable(),
        to: z.iso.date().nullable(),
      })
      .strict(),
    reconciliationRun,
  ),
  "reconciliation.stripe": operation(
    nothing,
    z.object({
      connection: stripeConnection.nullable(),
      api_version: z.string(),
      /** Which permissions a key needs, each to read. */
      permissions: z.array(stripePermission.omit({ is_granted: true })),
      /** Stripe's form for a restricted key with these permissions ticked. */
      create_key_url: z.string(),
    }),
  ),
  /** Asks Stripe about a key; keeps nothing. */
  "reconciliation.stripe_check": operation(z.object({ key: z.string().max(500) }).strict(), stripeKeyCheck),
  /** Keeps the key in the keychain, or for this session where there is none. */
  "reconciliation.stripe_connect": operation(
    z.object({ key: z.string().max(500) }).strict(),
    stripeConnection,
  ),
  /** Forgets the key; with `forget_data` also what was read. */
  "reconciliation.stripe_disconnect": operation(z.object({ forget_data: z.boolean() }).strict(), done),
  "reconciliation.cancel": operation(z.object({ run_id: z.string() }).strict(), reconciliationRun),
  "reconciliation.runs": operation(nothing, z.array(reconciliationRun)),
  /** The report of shared/governance/reconciliation without its difference rows. */
  "reconciliation.report": operation(
    z.object({ run_id: z.string() }).strict(),
    z.object({ run: reconciliationRun, report: z.unknown() }),
  ),
  "reconciliation.differences": operation(
    z
      .object({
        run_id: z.string(),
        difference_class: z.string().max(100).nullable(),
        offset: z.number().int().min(0),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    z.object({ differences: z.array(z.unknown()), total: records.whole }),
  ),
  "reconciliation.export": operation(
    z.object({ run_id: z.string(), format: z.enum(["csv", "json", "xlsx", "html"]) }).strict(),
    /** A workbook's bytes come as base64. */
    z.object({
      file_name: z.string(),
      media_type: z.string(),
      text: z.string(),
      encoding: z.enum(["utf8", "base64"]),
    }),
  ),

  // Runs that the project keeps, and what people do with their differences until the period is closed.
  "finance.counts": operation(nothing, finance.financeCounts),
  /** Sends some pages of a finished run; called again until `is_complete`. Goes on where it stopped. */
  "finance.keep_run": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    finance.keepOutcome.extend({ total: records.whole }),
  ),
  "finance.kept_runs": operation(
    nothing,
    z.object({ runs: z.array(finance.keptRun), as_of: records.instant.nullable() }),
  ),
  "finance.kept_run": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    z.object({ run: finance.keptRun, report: z.unknown(), as_of: records.instant.nullable() }),
  ),
  "finance.compare_runs": operation(
    z.object({ run_id: z.string().max(255), other_run_id: z.string().max(255) }).strict(),
    finance.runComparison,
  ),
  /** In order of id. */
  "finance.cases": operation(
    z
      .object({
        filter: finance.caseFilter,
        after: finance.differenceId.nullable(),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    finance.casePage.extend({ as_of: records.instant.nullable() }),
  ),
  /** With both sides, as the last run told them (Difference of shared/governance/reconciliation). */
  "finance.case": operation(
    z.object({ difference_id: finance.differenceId }).strict(),
    z.object({ case: finance.financeCase, difference: z.unknown(), as_of: records.instant.nullable() }),
  ),
  /** All of them or none. `versions` are those that were looked at: a case changed since is refused. */
  "finance.act": operation(
    z
      .object({
        command_id: commandId,
        difference_ids: z.array(finance.differenceId).min(1).max(1000),
        versions: z.record(z.string(), records.whole),
        action: finance.caseAction,
        reason: z.string().trim().max(2000).nullable(),
        assigned_to: z.string().trim().max(255).nullish(),
        correction: finance.correctionPatch.nullish(),
      })
      .strict(),
    z.looseObject({ cases: z.array(finance.financeCase) }),
  ),
  /** What an action on many cases would touch. */
  "finance.preview_act": operation(
    z
      .object({
        difference_ids: z.array(finance.differenceId).min(1).max(1000),
        action: z.enum([...finance.caseAction.options, "post"]),
      })
      .strict(),
    finance.bulkPreview,
  ),
  "finance.preview_post": operation(
    z.object({ difference_id: finance.differenceId }).strict(),
    finance.postPreview,
  ),
  /** Each by itself and once; where the connection breaks, `unsent` says how many were not tried. */
  "finance.post": operation(
    z
      .object({
        difference_ids: z.array(finance.differenceId).min(1).max(1000),
        versions: z.record(z.string(), records.whole),
      })
      .strict(),
    z.object({
      posted: z.array(finance.posted),
      refused: z.array(z.object({ difference_id: z.string(), failure })),
      unsent: records.whole,
    }),
  ),
  "finance.closing": operation(z.object({ run_id: z.string().max(255) }).strict(), finance.closing),
  "finance.close_period": operation(
    z
      .object({
        command_id: commandId,
        run_id: z.string().max(255),
        sign_off: z.string().trim().min(3, "Sign off in at least 3 letters.").max(2000),
      })
      .strict(),
    finance.closedNow,
  ),
  "finance.closed_periods": operation(
    nothing,
    z.object({ periods: z.array(finance.closedPeriod), as_of: records.instant.nullable() }),
  ),
  /** The sealed text itself; `is_right`: this console worked out the same SHA-256. */
  "finance.sealed_period": operation(
    z.object({ run_id: z.string().max(255) }).strict(),
    z.object({ file_name: z.string(), text: z.string(), seal: z.string(), is_right: z.boolean() }),
  ),
  "finance.stripe_events": operation(
    nothing,
    z.object({
      waiting: records.whole,
      events: z.array(finance.stripeEvent),
      packs: z.array(finance.packPrice),
      as_of: records.instant.nullable(),
    }),
  ),
  /** Lets a quarantined event through; what the event does not tell is named here. */
  "finance.release_event": operation(
    z
      .object({
        command_id: commandId,
        event_id: z.string().min(1).max(255),
        reason,
        user_id: userId.nullable(),
        pack_id: z.string().min(1).max(255).nullable(),
        tokens: z.number().int().min(1).max(100_000_000).nullable(),
      })
      .strict(),
    z.looseObject({ status: z.string(), effects: z.array(finance.effect) }),
  ),
  "finance.dismiss_event": operation(
    z.object({ command_id: commandId, event_id: z.string().min(1).max(255), reason }).strict(),
    done,
  ),

  "sync.intents": operation(nothing, z.array(intent)),
  /** Puts a conflict or failure to rest: send mine on top of theirs, or drop mine. */
  "sync.resolve": operation(
    z.object({ command_id: z.string(), choice: z.enum(["mine", "theirs"]) }).strict(),
    z.array(intent),
  ),

  "search.everything": operation(
    z.object({ query: z.string().max(500) }).strict(),
    z.array(records.searchHit),
  ),
  "settings.get": operation(nothing, settings),
  "settings.set": operation(settings.partial().strict(), settings),
  "settings.about": operation(nothing, about),
} as const;

export const streams = {
  connection: { input: nothing, item: connectionState },
  rail: { input: nothing, item: railCounts },
  intents: { input: nothing, item: z.array(intent) },
  /**
   * The live feed: first the newest events (at most 500), then batches as they happen, oldest first inside a
   * batch. After a reconnect it goes on behind `after_event_id`, the last event seen. When another project is
   * chosen, a batch with its `profile_id` begins anew.
   */
  feed: {
    input: z.object({ filter: feedFilter, after_event_id: records.whole.nullable() }).strict(),
    item: z.object({
      profile_id: z.string().nullable(),
      events: z.array(records.usageEvent).max(500),
      /** False while older events are still being read. */
      caught_up: z.boolean(),
    }),
  },
  reconciliation: { input: z.object({ run_id: z.string() }).strict(), item: reconciliationRun },
  /** Things worth interrupting a person for. */
  notices: { input: nothing, item: notice },
} as const;

export type Operations = typeof operations;
export type OperationName = keyof Operations;
export type OperationInput<N extends OperationName> = z.input<Operations[N]["input"]>;
export type OperationOutput<N extends OperationName> = z.infer<Operations[N]["output"]>;
export type Streams = typeof streams;
export type StreamName = keyof Streams;
export type StreamInput<N extends StreamName> = z.input<Streams[N]["input"]>;
export type StreamItem<N extends StreamName> = z.infer<Streams[N]["item"]>;
