import { useState } from "react";
import { useLive } from "./live.ts";

/** By project, form and subject. Of this window, until it is closed. */
const kept = new Map<string, unknown>();

/**
 * What is typed into a form that a key or a click beside it closes: it is there when the form is opened again. Whoever sends
 * or cancels forgets it.
 */
export function useUnsent<T>(
  form: string,
  initial: () => T,
): readonly [value: T, set: (change: (before: T) => T) => void, forget: () => void] {
  const project = useLive((state) => state.connection?.profile?.profile_id ?? "");
  const key = `${project} ${form}`;
  const [value, setValue] = useState<T>(() => (kept.has(key) ? (kept.get(key) as T) : initial()));
  const set = (change: (before: T) => T): void =>
    setValue((before) => {
      const next = change(before);
      kept.set(key, next);
      return next;
    });
  return [value, set, () => void kept.delete(key)];
}
