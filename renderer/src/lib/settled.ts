import { useCallback, useEffect, useRef, useState } from "react";

/** How long a text must rest before it is searched for. */
const REST_MS = 500;

export interface SettledText {
  /** The text in the box. */
  readonly typed: string;
  readonly type: (text: string) => void;
  /** Takes what is typed without waiting for more. */
  readonly settleNow: () => void;
  /** The text in the box has not been taken yet. */
  readonly isWaiting: boolean;
}

/** A text that is taken once the person has stopped typing. What is set from elsewhere (an address) shows at once. */
export function useSettledText(value: string, take: (text: string) => void): SettledText {
  const [typed, setTyped] = useState(value);
  const [known, setKnown] = useState(value);
  if (known !== value) {
    setKnown(value);
    setTyped(value);
  }
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  const latest = useRef({ typed, take });
  useEffect(() => {
    latest.current = { typed, take };
  });
  const stop = (): void => {
    if (timer.current !== null) clearTimeout(timer.current);
    timer.current = null;
  };
  useEffect(() => stop, []);
  const settleNow = useCallback(() => {
    stop();
    latest.current.take(latest.current.typed);
  }, []);
  const type = useCallback(
    (text: string) => {
      setTyped(text);
      latest.current.typed = text;
      stop();
      timer.current = setTimeout(settleNow, REST_MS);
    },
    [settleNow],
  );
  return { typed, type, settleNow, isWaiting: typed !== value };
}
