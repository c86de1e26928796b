/** Settings: the operator's own, and what this console is. */
import { z } from "zod";
import { nothing, operation } from "./basics.ts";

export const settings = z.object({
  /** Name that audit entries carry. */
  operator: z.string().trim().min(1).max(200),
  theme: z.enum(["system", "light", "dark"]),
  /** What the screens are written in; numbers and dates follow it. `system`: what the machine is set to. */
  language: z.enum(["system", "en", "de"]),
  notifications: z.boolean(),
  /** Where times are shown: `local` (the viewer's zone), `user` (each user's own), or a name such as `UTC`. */
  time_zone: z.string().max(100),
});
export type Settings = z.infer<typeof settings>;

const about = z.object({
  version: z.string(),
  host: z.enum(["electron", "browser"]),
  keychain: z.object({
    kind: z.enum(["keytar", "napi-keyring", "none"]),
    note: z.string().nullable(),
    /** The system's own message. */
    detail: z.string().nullable(),
  }),
  store: z.object({ path: z.string(), note: z.string().nullable() }),
  migrations: z.array(z.string()),
});
export type About = z.infer<typeof about>;

export const settingsStreams = {
  /** Also what another window has set. */
  settings: { input: nothing, item: settings },
} as const;

export const settingsOperations = {
  "settings.get": operation(nothing, settings),
  "settings.set": operation(settings.partial().strict(), settings),
  "settings.about": operation(nothing, about),
} as const;
