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
import { notConnected } from "../connection/connection.ts";
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

export interface StripeDeskOptions {
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

type StripeHandlers = Pick<Handlers, Extract<keyof typeof runOperations, `finance.stripe${string}`>>;

const needed = [...new Map(Object.values(stripePermissions).map((one) => [one.name, one])).values()];

/** Its query is not documented; where Stripe ignores it, the form is empty and the list says what to tick. */
const createKeyUrl = `https://dashboard.stripe.com/apikeys/create?${new URLSearchParams([
  ["name", "Token Governance, reading"],
  ...needed.map(({ name }): [string, string] => ["permissions[]", name]),
]).toString()}`;

export function createStripeDesk(options: StripeDeskOptions) {
  const { store, dataDir, now } = options;
  const client = options.endpoint ? { endpoint: options.endpoint } : {};
  /** Keys that no keychain keeps: gone with this process. */
  const sessionKeys = new Map<string, string>();

  const settingOf = (profileId: string): string => `stripe:${profileId}`;
  const connected = (profileId: string): Connected | null =>
    store.getSetting(settingOf(profileId)) as Connected | null;

  async function keyOf(profileId: string): Promise<string | null> {
    return sessionKeys.get(profileId) ?? (await (await options.keychain()).get(settingOf(profileId)));
  }

  function describe(profileId: string, connection: Connected): StripeConnection {
    const path = stripeCachePath(dataDir, profileId, connection);
    let through: number | null = null;
    let objects = 0;
    if (existsSync(path)) {
      const cache = openStripeCache(path);
      objects = Object.values(cache.counts()).reduce((sum, count) => sum + count, 0);
      const ends = STRIPE_RESOURCES.map((resource) => cache.reading(resource).covered?.through ?? null);
      if (!ends.includes(null)) through = Math.min(...ends.map(Number));
      cache.close();
    }
    return {
      ...connection,
      key_storage:
        connection.key_storage === "session" && !sessionKeys.has(profileId)
          ? "missing"
          : connection.key_storage,
      data_through: through === null ? null : new Date(through * 1000).toISOString(),
      objects,
    };
  }

  async function forget(profileId: string, isDataForgotten: boolean): Promise<void> {
    sessionKeys.delete(profileId);
    const former = connected(profileId);
    if (former) await (await options.keychain()).remove(settingOf(profileId));
    store.removeSetting(settingOf(profileId));
    if (isDataForgotten) rmSync(join(dataDir, "stripe", profileId), { recursive: true, force: true });
  }

  const handlers: StripeHandlers = {
    "finance.stripe": () => {
      const profileId = options.profileId();
      const connection = profileId === null ? null : connected(profileId);
      return ok({
        connection: profileId !== null && connection ? describe(profileId, connection) : null,
        api_version: stripeApiVersion,
        permissions: needed.map(({ row, name }) => ({ row, name })),
        create_key_url: createKeyUrl,
      });
    },
    "finance.stripe_check": async ({ key }) => writable(await checkStripeKey({ ...client, key: key.trim() })),
    "finance.stripe_connect": async ({ key: given }) => {
      const profileId = options.profileId();
      if (profileId === null) return fail(notConnected);
      const key = given.trim();
      const checked = await checkStripeKey({ ...client, key });
      if (!checked.ok) return checked;
      const missing = checked.value.permissions.filter((one) => !one.is_granted).map(({ row }) => `"${row}"`);
      if (missing.length > 0) return fail(lacks(missing));
      const isKept = await (await options.keychain()).set(settingOf(profileId), key);
      if (isKept) sessionKeys.delete(profileId);
      else sessionKeys.set(profileId, key);
      const { account_id, account_name, mode } = checked.value;
      const connection: Connected = {
        account_id,
        account_name,
        mode,
        key_storage: isKept ? "keychain" : "session",
        connected_at: now().toISOString(),
      };
      store.setSetting(settingOf(profileId), connection);
      return ok(describe(profileId, connection));
    },
    "finance.stripe_disconnect": async ({ forget_data: isDataForgotten }) => {
      const profileId = options.profileId();
      if (profileId === null) return fail(notConnected);
      await forget(profileId, isDataForgotten);
      return ok({});
    },
  };

  return {
    handlers,
    connection: connected,
    forget,

    /** Brings what is kept up to now, for a period that begins on a day. */
    async read(
      profileId: string,
      firstDay: string,
      signal: AbortSignal,
      onProgress: (progress: StripeProgress) => void,
    ): Promise<Result<{ readonly input: StripeInput; readonly reading: StripeReading }, Failure>> {
      const connection = connected(profileId);
      if (!connection) return fail(noStripe);
      const key = await keyOf(profileId);
      if (key === null) return fail(noKey);
      const since = Date.parse(`${firstDay}T00:00:00Z`) / 1000 - lookBackSeconds;
      const path = stripeCachePath(dataDir, profileId, connection);
      const cache = openStripeCache(path);
      try {
        const read = await readStripe({
          ...client,
          key,
          cache,
          account_id: connection.account_id,
          from: since,
          now,
          signal,
          onProgress,
        });
        if (!read.ok) return read;
        const { account_id, mode } = connection;
        return ok({ input: { path, account_id, mode, since }, reading: read.value });
      } finally {
        cache.close();
      }
    },
  };
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
