import { useCallback, useState } from "react";

/** Small things a person set up (sizes, filters, the last place), kept on this machine. Never data, never secrets. */
const PREFIX = "console.";

export function recall<T>(key: string, fallback: T, isValid: (value: unknown) => value is T): T {
  try {
    const text = localStorage.getItem(PREFIX + key);
    if (text === null) return fallback;
    const value: unknown = JSON.parse(text);
    return isValid(value) ? value : fallback;
  } catch {
    return fallback; // no storage, or something else wrote there
  }
}

export function remember(key: string, value: unknown): void {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // Full or forbidden: the choice lives until the window closes.
  }
}

/** State that outlives the window. */
export function useRemembered<T>(
  key: string,
  fallback: T,
  isValid: (value: unknown) => value is T,
): readonly [T, (value: T) => void] {
  const [value, setValue] = useState<T>(() => recall(key, fallback, isValid));
  const set = useCallback(
    (next: T) => {
      setValue(next);
      remember(key, next);
    },
    [key],
  );
  return [value, set];
}

export const isText = (value: unknown): value is string => typeof value === "string";
export const isNumber = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value);
export const isFlag = (value: unknown): value is boolean => typeof value === "boolean";
export const isOneOf =
  <T extends string>(...members: readonly T[]) =>
  (value: unknown): value is T =>
    members.includes(value as T);
