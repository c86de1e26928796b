import { useSyncExternalStore } from "react";
import type { Profile } from "../../../shared/contract/connection.ts";
import { linkTo } from "../../../shared/contract/links.ts";
import { recall, remember, isText } from "./remember.ts";

/**
 * Addresses live in the fragment (`#/users/42/ledger?day=…`): it works under app:// and on loopback alike, and
 * never reaches a server.
 */
interface Place {
  /** Decoded path parts: ["users", "42", "ledger"]. */
  readonly parts: readonly string[];
  readonly query: URLSearchParams;
  /** The address as text, without "#". */
  readonly address: string;
}

const HOME = "/watch";

export function parsePlace(hash: string): Place {
  const address = hash.startsWith("#/") ? hash.slice(1) : HOME;
  const [path = "", query = ""] = address.split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decodePart);
  return { parts, query: new URLSearchParams(query), address };
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a broken escape is shown as it was typed
  }
}

/** Builds an address from raw parts; null and undefined query values are left out. */
export function placeAddress(
  parts: readonly string[],
  query: Readonly<Record<string, string | null | undefined>> = {},
): string {
  // encodeURIComponent throws on half a surrogate pair, and an id may hold one.
  const path = parts.map((part) => `/${encodeURIComponent(part.toWellFormed())}`).join("");
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value) search.set(key, value);
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

let current = parsePlace("");
const listeners = new Set<() => void>();

function read(): void {
  if (location.hash && !location.hash.startsWith("#/")) return; // the host's one-time token, not ours
  current = parsePlace(location.hash);
  remember("place", current.address);
  for (const listener of listeners) listener();
}

/** Starts listening; goes to the last place where the address names none. */
export function startRouter(): void {
  window.addEventListener("hashchange", read);
  if (!location.hash.startsWith("#/")) history.replaceState(null, "", `#${recall("place", HOME, isText)}`);
  read();
}

export function navigate(address: string, options: { readonly replace?: boolean } = {}): void {
  if (address === current.address) return;
  if (options.replace) history.replaceState(null, "", `#${address}`);
  else history.pushState(null, "", `#${address}`);
  read();
}

/** Changes some values of the address and leaves the others as they are; an empty value is taken out. */
export function changeQuery(changes: Readonly<Record<string, string | null>>): void {
  navigate(placeAddress(current.parts, { ...Object.fromEntries(current.query), ...changes }), {
    replace: true,
  });
}

export function currentPlace(): Place {
  return current;
}

export function usePlace(): Place {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, currentPlace);
}

/** In the program's own window, not in a browser. */
export const isDesktop = (): boolean => "consoleBridge" in globalThis;

/** For links that leave the window: what to paste into a ticket. */
export function absoluteAddress(address: string, profile: Profile | null): string {
  // The window's own address means nothing outside it; this one opens there, from a ticket or a chat.
  if (isDesktop()) return linkTo(address, profile);
  return `${location.origin === "null" ? "" : location.origin}${location.pathname}#${address}`;
}
