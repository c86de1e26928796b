/** Which project the console works on, and whether it is reached. */
import { z } from "zod";
import { done, type Failure, failure, instant, nothing, operation, whole } from "./basics.ts";

export const projectInfo = z.looseObject({
  /** Version of the newest migration applied, and how many. */
  schema_version: z.string(),
  /** Those applied, in order, as `<14 digits>_<name>`; empty where the project keeps no record. */
  migrations: z.array(z.string()).optional(),
  server_version: z.string(),
  preset: z.string().nullable(),
  currency: z.string(),
  /** True where the project holds our sample data. */
  sample_data: z.boolean(),
  accounts: whole,
  plans: z.array(z.looseObject({ plan_id: z.string(), name: z.string() })),
  server_time: instant,
});
export type ProjectInfo = z.infer<typeof projectInfo>;

/** What a project can be marked with, so that one is not taken for another. */
export const profileColors = ["grey", "blue", "green", "amber", "red", "violet"] as const;
const profileColor = z.enum(profileColors);
export type ProfileColor = z.infer<typeof profileColor>;

const profile = z.object({
  profile_id: z.string(),
  name: z.string(),
  url: z.string(),
  /** A read replica that reads go to; null where there is none. */
  read_url: z.string().nullable(),
  /** local: the embedded project on this machine. supabase: a project a person connected. */
  kind: z.enum(["local", "supabase"]),
  is_production: z.boolean(),
  /** Nothing is ever changed in the project from here. */
  is_read_only: z.boolean(),
  color: profileColor.nullable(),
  /** session: no keychain here, the key is forgotten when the console ends. generated: the local project's own. */
  key_storage: z.enum(["keychain", "session", "generated", "missing"]),
  added_at: instant,
});
export type Profile = z.infer<typeof profile>;

const connectionState = z.object({
  profile: profile.nullable(),
  status: z.enum(["starting", "connecting", "catching_up", "live", "offline", "refused"]),
  /** Since when it is in this status. */
  since: instant,
  /** Why offline or refused. */
  failure: failure.nullable(),
  project: projectInfo.nullable(),
  /** The read replica: seconds behind the primary, null while not known; why it cannot be asked. Null without one. */
  replica: z.object({ lag_seconds: z.number().min(0).nullable(), failure: failure.nullable() }).nullable(),
  /** Last time anything was read from the project: how old what is shown may be. */
  last_sync_at: instant.nullable(),
  /** Sample traffic: null where the project has none. */
  sample_traffic: z
    .object({
      running: z.boolean(),
      calls: whole,
      filling: z.number().min(0).max(1).nullable(),
      /** Where Stripe's exports for the sample's purchases lie; null while they are not written. */
      stripe_folder: z.string().nullish(),
      /** Why there is no sample data, in one sentence. */
      problem: z.string().nullish(),
    })
    .nullable(),
});
export type ConnectionState = z.infer<typeof connectionState>;

/** Whether a project in this status answers; while it is catching up, what is shown may be old. */
export const isReached = (status: ConnectionState["status"] | null | undefined): boolean =>
  status === "live" || status === "catching_up";

/** Whether a project counts as live after this status: a live one that is slow to answer is catching up meanwhile. */
export const staysLive = (wasLive: boolean, status: ConnectionState["status"]): boolean =>
  status === "live" || (wasLive && status === "catching_up");

/** What was begun in one project is not gone on with in another. */
export const otherProject: Failure = {
  code: "other_project",
  message: "Another project was opened meanwhile.",
  advice: "Open the project where you began, and do it there.",
  details: null,
};

export const connectionOperations = {
  "connection.state": operation(nothing, connectionState),
  "connection.profiles": operation(nothing, z.array(profile)),
  /** Tries a URL and key without keeping them; every way it can fail is a failure of its own. */
  "connection.check": operation(
    z
      .object({
        url: z.string().trim().max(2000),
        key: z.string().trim().max(10_000),
        read_url: z.string().trim().max(2000).optional(),
      })
      .strict(),
    z.object({
      role: z.string(),
      /** Null where the project has nothing of ours yet. */
      project: projectInfo.nullable(),
      missing_migrations: z.array(z.string()),
    }),
  ),
  "connection.add": operation(
    z
      .object({
        name: z.string().trim().min(1).max(200),
        url: z.string().trim().max(2000),
        key: z.string().trim().max(10_000),
        /** A read replica of the project; left out or empty where there is none. */
        read_url: z.string().trim().max(2000).optional(),
        is_production: z.boolean(),
        is_read_only: z.boolean().default(false),
        color: profileColor.nullable().default(null),
      })
      .strict(),
    profile,
  ),
  /** Changes what is given. A new key or read replica is tried before it is kept. */
  "connection.edit": operation(
    z
      .object({
        profile_id: z.string(),
        name: z.string().trim().min(1).max(200).optional(),
        key: z.string().trim().max(10_000).optional(),
        /** Empty: none any more. */
        read_url: z.string().trim().max(2000).optional(),
        is_production: z.boolean().optional(),
        is_read_only: z.boolean().optional(),
        color: profileColor.nullable().optional(),
      })
      .strict(),
    profile,
  ),
  "connection.select": operation(z.object({ profile_id: z.string() }).strict(), connectionState),
  /** Shows a project in a window of its own, or brings its window to the front; refused where there is one window. */
  "connection.open_window": operation(z.object({ profile_id: z.string() }).strict(), done),
  "connection.remove": operation(z.object({ profile_id: z.string() }).strict(), done),
  "connection.retry": operation(nothing, connectionState),
  /** Starts or stops the sample traffic of the local project; refused for any other. */
  "connection.sample_traffic": operation(z.object({ running: z.boolean() }).strict(), connectionState),
} as const;

export const connectionStreams = {
  connection: { input: nothing, item: connectionState },
} as const;
