import { useSyncExternalStore } from "react";
import { create } from "zustand";
import { viewerZone } from "./format.ts";

let nowMs = Date.now();
let timer: ReturnType<typeof setInterval> | null = null;
const listeners = new Set<() => void>();

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    nowMs = Date.now();
    for (const each of listeners) each();
  }, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && timer) {
      clearInterval(timer);
      timer = null;
    }
  };
}

/** The time in steps of `stepMs` (a second at least): components re-render only when their step changes. */
export function useNow(stepMs = 1000): number {
  return useSyncExternalStore(subscribe, () => {
    if (timer === null) nowMs = Date.now();
    return Math.floor(nowMs / stepMs) * stepMs;
  });
}

interface ZoneState {
  /** As the settings have it: "local", "account", "UTC" or a zone's name. */
  readonly choice: string;
  setChoice(choice: string): void;
}
export const useZoneChoice = create<ZoneState>((set) => ({
  choice: "local",
  setChoice: (choice) => set({ choice }),
}));

/** The zone to show times in; `accountZone` where a user's own is known. */
export function resolveZone(choice: string, accountZone?: string | null): string {
  if (choice === "account") return accountZone ?? viewerZone();
  if (choice === "local" || choice === "") return viewerZone();
  return choice;
}

export function useZone(accountZone?: string | null): string {
  return resolveZone(
    useZoneChoice((state) => state.choice),
    accountZone,
  );
}
