/**
 * What the program is started with, or given while it runs: a link from a ticket to a screen, or files. A link only
 * shows a place: it does nothing, and its author is not trusted.
 */
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { linkScheme } from "../../../shared/contract/links.ts";

/** The desks in the order of the rail; a test holds that these are its desks. */
export const desks = [
  "watch",
  "alerts",
  "users",
  "rules",
  "plans",
  "costs",
  "finance",
  "health",
  "audit",
  "settings",
] as const;
const maxLength = 2000;

export interface Target {
  /** The screen's address, such as `/users/42?tab=ledger`. */
  readonly place: string;
  /** The host of the project it is about; null for the one that is open. */
  readonly project: string | null;
}

/** Null where it is not a link to one of our screens. */
export function targetOfLink(link: string): Target | null {
  if (link.length > maxLength) return null;
  const found = /^token-governance:\/\/([^/?#]+)([^?#]*)(\?[^#]*)?(?:#.*)?$/i.exec(link);
  const desk = found?.[1]?.toLowerCase() ?? "";
  if (!found || !(desks as readonly string[]).includes(desk)) return null;
  const path = (found[2] ?? "").replace(/\/+$/, "");
  const given = found[3]?.slice(1).split("&") ?? [];
  const project = given.find((each) => each.startsWith("project="))?.slice("project=".length) ?? null;
  // Only the program itself names files, never a link.
  const query = given.filter((each) => !/^(project|files)=/.test(each)).join("&");
  const place = `/${desk}${path}${query ? `?${query}` : ""}`;
  // Printable and without spaces, quotes or brackets: anything else comes percent-encoded.
  if (!/^[!#-;=?-Z_a-z~\]-]+$/.test(place) || place.includes("..")) return null;
  if (project !== null && !/^[a-z0-9.-]+(:\d+)?$/i.test(project)) return null;
  return { place, project };
}

/** The link among the arguments that a program was started with. */
export function targetInArguments(argv: readonly string[]): Target | null {
  const link = argv.find((each) => each.toLowerCase().startsWith(`${linkScheme}://`));
  return link === undefined ? null : targetOfLink(link);
}

/** The files among them: what was dropped on the program's icon. Linux gives them as addresses. */
export function filesInArguments(argv: readonly string[], folder: string): string[] {
  return argv
    .filter((each) => /\.csv$/i.test(each) && !each.startsWith("-"))
    .flatMap((each) => {
      if (!/^[a-z-]{2,}:\/\//i.test(each)) return [resolve(folder, each)];
      try {
        return [fileURLToPath(each)];
      } catch {
        return [];
      }
    });
}

/** Where files go: Finance's import, which asks for them by their ids. */
export function placeOfFiles(ids: readonly string[]): string {
  return `/finance/new?files=${ids.join(",")}`;
}
