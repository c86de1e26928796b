/** token-governance://users/42?project=abc.supabase.co: what leads from a ticket or a chat to a screen of a project. */
import type { Profile } from "./connection.ts";

export const linkScheme = "token-governance";

/** What names a project outside this machine: its address is the same for everybody, its id here is not. */
export function projectHost({ kind, url }: Pick<Profile, "kind" | "url">): string {
  return kind === "local" ? "local" : new URL(url).host;
}

/** `place`: a screen's address, such as `/users/42?tab=ledger`. Without a project the link is about the one that is open. */
export function linkTo(place: string, profile: Pick<Profile, "kind" | "url"> | null): string {
  const project = profile ? `${place.includes("?") ? "&" : "?"}project=${projectHost(profile)}` : "";
  return `${linkScheme}:/${place}${project}`;
}
