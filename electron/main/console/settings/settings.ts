/** What a person set for this console. */
import { userInfo } from "node:os";
import {
  type About,
  type Failure,
  type Settings,
  settings,
  type settingsOperations,
} from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import { redact } from "../../backend/redact.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Store } from "../../store/store.ts";
import type { Handlers } from "../dispatch.ts";
import type { Topic } from "../topic.ts";

function systemName(): string {
  try {
    return userInfo().username || "operator";
  } catch {
    return "operator";
  }
}

export function readSettings(store: Store): Settings {
  const defaults: Settings = {
    operator: systemName(),
    theme: "system",
    language: "system",
    notifications: true,
    time_zone: "local",
  };
  const kept = settings.partial().safeParse(store.getSetting("settings") ?? {});
  return { ...defaults, ...(kept.success ? kept.data : {}) };
}

function writeSettings(store: Store, change: Partial<Settings>): Settings {
  const next = { ...readSettings(store), ...change };
  store.setSetting("settings", next);
  return next;
}

interface SettingsParts {
  readonly store: Store;
  readonly keychain: () => Promise<Keychain>;
  readonly settings: Topic<Settings>;
}

export function settingsHandlers(
  { store, keychain, settings: topic }: SettingsParts,
  about: Omit<About, "keychain">,
): Pick<Handlers, keyof typeof settingsOperations> {
  return {
    "settings.get": () => ok(readSettings(store)),
    "settings.set": (change) => {
      if (change.time_zone !== undefined && !isTimeZone(change.time_zone)) return fail(unknownZone);
      const next = writeSettings(store, change as Parameters<typeof writeSettings>[1]);
      topic.publish(next);
      return ok(next);
    },
    "settings.about": async () => {
      const { kind, note, detail } = await keychain();
      return ok({ ...about, keychain: { kind, note, detail: detail ? redact(detail) : null } });
    },
  };
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
