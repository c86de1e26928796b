/**
 * The system's keychain: keytar where it works, else @napi-rs/keyring. Which one is remembered and never switched
 * silently: on Linux neither reads the other's entries. Every call has a time limit: a locked keyring can hang.
 * Where none works, keys live for the session only, and the screen shows that.
 */
import { randomUUID } from "node:crypto";

export type KeychainKind = "keytar" | "napi-keyring" | "none";

export interface Keychain {
  readonly kind: KeychainKind;
  /** For a person: why there is none, or what changed. */
  readonly note: string | null;
  /** The system's own message. */
  readonly detail?: string;
  get(account: string): Promise<string | null>;
  /** False where it could not be kept. */
  set(account: string, secret: string): Promise<boolean>;
  remove(account: string): Promise<void>;
}

/** The interface that both libraries share. */
export interface KeychainLibrary {
  getPassword(service: string, account: string): Promise<string | null>;
  setPassword(service: string, account: string, password: string): Promise<unknown>;
  deletePassword(service: string, account: string): Promise<boolean>;
}

interface KeychainOptions {
  /** Entries of two installations must not mix. */
  readonly service: string;
  /** The one used before, if any. */
  readonly remembered: KeychainKind | null;
  readonly timeoutMs?: number;
  readonly load?: (kind: Exclude<KeychainKind, "none">) => Promise<KeychainLibrary>;
}

const loadLibrary: NonNullable<KeychainOptions["load"]> = async (kind) => {
  if (kind === "keytar") {
    // An optional dependency: not there where it could not be built.
    const name = "keytar";
    const module = (await import(name)) as { default?: KeychainLibrary } & KeychainLibrary;
    return module.default ?? module;
  }
  const module = (await import("@napi-rs/keyring/keytar.js")) as {
    default?: KeychainLibrary;
  } & KeychainLibrary;
  return module.default ?? module;
};

export async function openKeychain(options: KeychainOptions): Promise<Keychain> {
  const { service, remembered, timeoutMs = 5_000, load = loadLibrary } = options;
  const candidates =
    remembered === null || remembered === "none"
      ? (["keytar", "napi-keyring"] as const)
      : ([remembered] as const);
  const reasons: string[] = [];
  for (const kind of candidates) {
    try {
      const library = await limited(load(kind), timeoutMs);
      await tryOut(library, service, timeoutMs);
      return working(kind, library, service, timeoutMs);
    } catch (error) {
      reasons.push(`${kind}: ${(error as Error).message}`);
    }
  }
  const note =
    remembered === null || remembered === "none"
      ? "No keychain works here, so keys are kept until the console ends and never written."
      : `The keychain that holds the keys (${remembered}) does not answer. Unlock it and start again; until then keys are kept for this session only.`;
  return sessionOnly(note, reasons.join("; "));
}

/** A library may load and answer null to everything: only an entry that comes back proves that it keeps one. */
async function tryOut(library: KeychainLibrary, service: string, timeoutMs: number): Promise<void> {
  const account = `trial-${randomUUID()}`;
  await limited(library.setPassword(service, account, account), timeoutMs);
  const back = await limited(library.getPassword(service, account), timeoutMs);
  await limited(library.deletePassword(service, account), timeoutMs);
  if (back !== account) throw new Error("it does not keep what it is given");
}

function working(kind: KeychainKind, library: KeychainLibrary, service: string, timeoutMs: number): Keychain {
  return {
    kind,
    note: null,
    async get(account) {
      try {
        return await limited(library.getPassword(service, account), timeoutMs);
      } catch {
        return null;
      }
    },
    async set(account, secret) {
      try {
        await limited(library.setPassword(service, account, secret), timeoutMs);
        return (await limited(library.getPassword(service, account), timeoutMs)) === secret;
      } catch {
        return false;
      }
    },
    async remove(account) {
      await limited(library.deletePassword(service, account), timeoutMs).catch(() => false);
    },
  };
}

function sessionOnly(note: string, detail: string): Keychain {
  return {
    kind: "none",
    note,
    detail,
    get: async () => null,
    set: async () => false,
    remove: async () => {},
  };
}

/** The same keychain, with the keys that it could not keep: those are gone with this process. */
export function withSessionKeys(keychain: Keychain): Keychain {
  const keys = new Map<string, string>();
  return {
    ...keychain,
    get: async (account) => keys.get(account) ?? (await keychain.get(account)),
    async set(account, secret) {
      const isKept = await keychain.set(account, secret);
      if (isKept) keys.delete(account);
      else keys.set(account, secret);
      return isKept;
    },
    async remove(account) {
      keys.delete(account);
      await keychain.remove(account);
    },
  };
}

async function limited<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
