import { useState } from "react";
import { useOpenProject } from "./live.ts";

/** By project, form and subject. Of this window, until it is closed. */
const kept = new Map<string, unknown>();

/**
 * Keeps the text typed into a form when a key or a click elsewhere closes it, so that the form opens with it again.
 * Forgotten once the form is sent or cancelled.
 */
export function useUnsent<T>(
  form: string,
  initial: () => T,
): readonly [value: T, set: (change: (before: T) => T) => void, forget: () => void] {
  const key = `${useOpenProject()} ${form}`;
  const [value, setValue] = useState<T>(() => (kept.has(key) ? (kept.get(key) as T) : initial()));
  const set = (change: (before: T) => T): void =>
    setValue((before) => {
      const next = change(before);
      kept.set(key, next);
      return next;
    });
  return [value, set, () => void kept.delete(key)];
}

export interface Draft<Seen, Written> {
  readonly draft: Written;
  /** The record that it was written on: there may be a newer one by now, and saving then says so. */
  readonly base: Seen | null;
  readonly isDirty: boolean;
  readonly write: (draft: Written) => void;
  /** Begins again from the record as it is. */
  readonly forget: () => void;
}

/** What is written on a record and not saved, with the record that it was written on: it stays while one looks elsewhere. */
export function useDraft<Seen, Written>(
  subject: string,
  record: Seen | null,
  begin: Written,
): Draft<Seen, Written> {
  const [held, hold, drop] = useUnsent<{ readonly base: Seen | null; readonly draft: Written } | null>(
    `draft:${subject}`,
    () => null,
  );
  const base = held ? held.base : record;
  return {
    draft: held ? held.draft : begin,
    base,
    isDirty: held !== null,
    write: (draft) => hold(() => ({ base, draft })),
    forget: () => {
      hold(() => null);
      drop();
    },
  };
}
