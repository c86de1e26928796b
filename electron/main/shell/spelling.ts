/**
 * The spelling of what a person writes. macOS has a checker of its own; elsewhere it is Chromium's, and its dictionaries
 * come from the server of newer versions alone: without one nothing is checked, and nothing is fetched from anybody else.
 */
import { existsSync, readFileSync } from "node:fs";
import type { Session } from "electron";
import { serverOf } from "./update-server.ts";

export function checkSpelling(
  session: Session,
  feedPath: string,
  wanted: readonly string[],
  platform: NodeJS.Platform = process.platform,
): void {
  if (platform === "darwin") return;
  if (!existsSync(feedPath)) return session.setSpellCheckerEnabled(false);
  session.setSpellCheckerDictionaryDownloadURL(
    new URL("dictionaries/", serverOf(readFileSync(feedPath, "utf8"))).href,
  );
  const known = session.availableSpellCheckerLanguages;
  const languages = wanted.filter((language) => known.includes(language)).slice(0, 3);
  session.setSpellCheckerLanguages(languages.length > 0 ? languages : ["en-GB"]);
}
