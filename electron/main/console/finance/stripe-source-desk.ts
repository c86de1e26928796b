/** The Stripe account of each project: whose key it is, where the key lies, and what was read with it. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type {
  Failure,
  runOperations,
  StripeConnection,
  StripeKeyCheck,
} from "../../../../shared/contract/index.ts";
import { STRIPE_RESOURCES } from "../../../../shared/governance/reconciliation/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Store } from "../../store/store.ts";
import { notConnected } from "../connection/link.ts";
import type { Handlers } from "../dispatch.ts";
import { openStripeCache } from "./stripe-source-cache.ts";
import { type StripeEndpoint, stripeApiVersion, stripePermissions } from "./stripe-source-client.ts";
import {
  checkStripeKey,
  lookBackSeconds,
  readStripe,
  type StripeProgress,
  type StripeReading,
  stripeCachePath,
} from "./stripe-source.ts";

interface StripeDeskOptions {
  readonly store: Store;
  readonly keychain: () => Promise<Keychain>;
  readonly profileId: () => string | null;
  readonly dataDir: string;
  readonly now: () => Date;
  readonly endpoint?: StripeEndpoint;
}

/** What is kept of a connection beside the keychain. */
interface Connected {
  readonly account_id: string;
  readonly account_name: string | null;
  readonly mode: "live" | "test";
  readonly key_storage: "keychain" | "session";
  readonly connected_at: string;
}

/** What the reconciler needs to find what was read. */
export interface StripeInput {
  readonly path: string;
  readonly account_id: string;
  readonly mode: "live" | "test";
  /** From when on, in seconds since 1970. */
  readonly since: number;
}

type StripeRead = Result<{ readonly input: StripeInput; readonly reading: StripeReading }, Failure>;
type StripeHandlers = Pick<Handlers, Extract<keyof typeof runOperations, `finance.stripe${string}`>>;

const needed = [...new Map(Object.values(stripePermissions).map((one) => [one.name, one])).values()];

/** Its query is not documented; where Stripe ignores it, the form is empty and our list shows what to tick. */
const createKeyUrl = `https://dashboard.stripe.com/apikeys/create?${new URLSearchParams([
  ["name", "Token Governance, reading"],
  ...needed.map(({ name }): [string, string] => ["permissions[]", name]),
]).toString()}`;

export type StripeDesk = ReturnType<typeof createStripeDesk>;

export function createStripeDesk(desk: StripeDeskOptions) {
  return {
    handlers: stripeHandlers(desk),
    connection: (profileId: string): Connected | null => connected(desk, profileId),
    forget: async (profileId: string): Promise<void> => {
      await forgetKey(desk, profileId);
      forgetData(desk, profileId);
    },
    /** Brings what is kept up to now, for a period that begins on a day. */
    read: (
      profileId: string,
      firstDay: string,
      signal: AbortSignal,
      onProgress: (progress: StripeProgress) => void,
    ): Promise<StripeRead> => read(desk, profileId, firstDay, signal, onProgress),
  };
}

const settingOf = (profileId: string): string => `stripe:${profileId}`;

function connected({ store }: StripeDeskOptions, profileId: string): Connected | null {
  return store.getSetting(settingOf(profileId)) as Connected | null;
}

async function keyOf({ keychain }: StripeDeskOptions, profileId: string): Promise<string | null> {
  return await (await keychain()).get(settingOf(profileId));
}

/** Puts the key into the keychain, or keeps it for this session where there is none. */
async function keepKey(
  { keychain }: StripeDeskOptions,
  profileId: string,
  key: string,
): Promise<Connected["key_storage"]> {
  return (await (await keychain()).set(settingOf(profileId), key)) ? "keychain" : "session";
}

async function describe(
  desk: StripeDeskOptions,
  profileId: string,
  connection: Connected,
): Promise<StripeConnection> {
  const { through, objects } = whatIsKept(stripeCachePath(desk.dataDir, profileId, connection));
  const isKeyMissing = connection.key_storage === "session" && (await keyOf(desk, profileId)) === null;
  return {
    ...connection,
    key_storage: isKeyMissing ? "missing" : connection.key_storage,
    data_through: through === null ? null : new Date(through * 1000).toISOString(),
    objects,
  };
}

/** How many objects were read, and until when (seconds since 1970) all kinds of them; null where a kind is missing. */
function whatIsKept(path: string): { readonly through: number | null; readonly objects: number } {
  if (!existsSync(path)) return { through: null, objects: 0 };
  const cache = openStripeCache(path);
  try {
    const ends = STRIPE_RESOURCES.map((resource) => cache.reading(resource).covered?.through ?? null);
    return {
      through: ends.includes(null) ? null : Math.min(...ends.map(Number)),
      objects: Object.values(cache.counts()).reduce((sum, count) => sum + count, 0),
    };
  } finally {
    cache.close();
  }
}

async function forgetKey(desk: StripeDeskOptions, profileId: string): Promise<void> {
  if (connected(desk, profileId)) await (await desk.keychain()).remove(settingOf(profileId));
  desk.store.removeSetting(settingOf(profileId));
}

function forgetData(desk: StripeDeskOptions, profileId: string): void {
  rmSync(join(desk.dataDir, "stripe", profileId), { recursive: true, force: true });
}

const clientOf = ({ endpoint }: StripeDeskOptions): { readonly endpoint?: StripeEndpoint } =>
  endpoint ? { endpoint } : {};

function stripeHandlers(desk: StripeDeskOptions): StripeHandlers {
  return {
    "finance.stripe": async () => {
      const profileId = desk.profileId();
      const connection = profileId === null ? null : connected(desk, profileId);
      return ok({
        connection: profileId !== null && connection ? await describe(desk, profileId, connection) : null,
        api_version: stripeApiVersion,
        permissions: needed.map(({ row, name }) => ({ row, name })),
        create_key_url: createKeyUrl,
      });
    },
    "finance.stripe_check": async ({ key }) =>
      writable(await checkStripeKey({ ...clientOf(desk), key: key.trim() })),
    "finance.stripe_connect": async ({ key }) => {
      const profileId = desk.profileId();
      return profileId === null ? fail(notConnected) : connect(desk, profileId, key.trim());
    },
    "finance.stripe_disconnect": async ({ forget_data: forgetsData }) => {
      const profileId = desk.profileId();
      if (profileId === null) return fail(notConnected);
      await forgetKey(desk, profileId);
      if (forgetsData) forgetData(desk, profileId);
      return ok({});
    },
  };
}

async function connect(
  desk: StripeDeskOptions,
  profileId: string,
  key: string,
): Promise<Result<StripeConnection, Failure>> {
  const checked = await checkStripeKey({ ...clientOf(desk), key });
  if (!checked.ok) return checked;
  const missing = checked.value.permissions.filter((one) => !one.is_granted).map(({ row }) => `"${row}"`);
  if (missing.length > 0) return fail(lacks(missing));
  const { account_id, account_name, mode } = checked.value;
  const connection: Connected = {
    account_id,
    account_name,
    mode,
    key_storage: await keepKey(desk, profileId, key),
    connected_at: desk.now().toISOString(),
  };
  desk.store.setSetting(settingOf(profileId), connection);
  return ok(await describe(desk, profileId, connection));
}

async function read(
  desk: StripeDeskOptions,
  profileId: string,
  firstDay: string,
  signal: AbortSignal,
  onProgress: (progress: StripeProgress) => void,
): Promise<StripeRead> {
  const connection = connected(desk, profileId);
  if (!connection) return fail(noStripe);
  const key = await keyOf(desk, profileId);
  if (key === null) return fail(noKey);
  const { account_id, mode } = connection;
  const since = Date.parse(`${firstDay}T00:00:00Z`) / 1000 - lookBackSeconds;
  const path = stripeCachePath(desk.dataDir, profileId, connection);
  const cache = openStripeCache(path);
  try {
    const { now } = desk;
    const options = { ...clientOf(desk), key, cache, account_id, from: since, now, signal, onProgress };
    const reading = await readStripe(options);
    return reading.ok ? ok({ input: { path, account_id, mode, since }, reading: reading.value }) : reading;
  } finally {
    cache.close();
  }
}

function writable(checked: Awaited<ReturnType<typeof checkStripeKey>>): Result<StripeKeyCheck, Failure> {
  return checked.ok ? ok({ ...checked.value, permissions: [...checked.value.permissions] }) : checked;
}

const lacks = (rows: readonly string[]): Failure => ({
  code: "missing_permission",
  message: `The key may not read everything: ${rows.join(", ")} ${rows.length === 1 ? "is" : "are"} missing.`,
  advice: "In Stripe's dashboard, under Developers, API keys, edit the key and set each of them to Read.",
  details: null,
});
const noStripe: Failure = {
  code: "not_connected",
  message: "No Stripe account is connected to this project.",
  advice: "Connect Stripe with a restricted key, or bring its exports as files.",
  details: null,
};
const noKey: Failure = {
  code: "missing_key",
  message: "The key for this Stripe account is not here any more.",
  advice:
    "Connect Stripe again: the key was kept for one session only, or the keychain lost it. What was read is kept.",
  details: null,
};
