/**
 * token-governance://users/42: a link from a ticket to a screen. It only shows a place; nothing is done by a link, and
 * whoever wrote it is not trusted.
 */
export const linkScheme = "token-governance";

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

/** The screen's address, such as `/users/42?tab=ledger`; null for what is no link to a screen of ours. */
export function placeOfLink(link: string): string | null {
  if (link.length > maxLength) return null;
  const found = /^token-governance:\/\/([^/?#]+)([^?#]*)(\?[^#]*)?(?:#.*)?$/i.exec(link);
  const desk = found?.[1]?.toLowerCase() ?? "";
  if (!found || !(desks as readonly string[]).includes(desk)) return null;
  const path = (found[2] ?? "").replace(/\/+$/, "");
  const place = `/${desk}${path}${found[3] ?? ""}`;
  // Printable and without spaces, quotes or brackets: anything else comes percent-encoded.
  return /^[!#-;=?-Z_a-z~\]-]+$/.test(place) && !place.includes("..") ? place : null;
}

/** The link among the arguments that a program was started with. */
export function placeInArguments(argv: readonly string[]): string | null {
  const link = argv.find((each) => each.toLowerCase().startsWith(`${linkScheme}://`));
  return link === undefined ? null : placeOfLink(link);
}
