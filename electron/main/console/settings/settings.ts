/** What a person set for this console. */
import { userInfo } from "node:os";
import { type Settings, settings } from "../../../../shared/contract/index.ts";
import type { Store } from "../../store/store.ts";

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
    notifications: true,
    time_zone: "local",
  };
  const kept = settings.partial().safeParse(store.getSetting("settings") ?? {});
  return { ...defaults, ...(kept.success ? kept.data : {}) };
}

export function writeSettings(store: Store, change: Partial<Settings>): Settings {
  const next = { ...readSettings(store), ...change };
  store.setSetting("settings", next);
  return next;
}
