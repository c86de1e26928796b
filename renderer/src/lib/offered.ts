/** What the open page can do, offered in the palette beside what can be done everywhere. */
import { useEffect } from "react";
import { create } from "zustand";

interface Offered {
  readonly id: string;
  readonly label: string;
  /** More words to find it by. */
  readonly words: string;
  readonly run: () => void;
}

export const useOffered = create<{ readonly actions: readonly Offered[] }>(() => ({ actions: [] }));

/** Offers these while the page is there. `key` changes when they do. */
export function useOffer(key: string, actions: () => readonly Offered[]): void {
  useEffect(() => {
    useOffered.setState({ actions: actions() });
    return () => useOffered.setState({ actions: [] });
    // oxlint-disable-next-line react-hooks/exhaustive-deps -- the key says when the actions are others
  }, [key]);
}
