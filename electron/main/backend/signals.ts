/** Wake-ups of a project: from Realtime where it delivers them, else by polling. */
import { z } from "zod";

export type SignalTopic = "feed" | "rules" | "accounts" | "alerts";

/** How often each topic was rung so far. */
export const signalBeats = z.record(z.string(), z.number());
export type SignalBeats = z.infer<typeof signalBeats>;

/** Reading them costs one row a topic; so an alert is on the screen within a second without Realtime too. */
const deafMs = 500;
/** Realtime delivers; polling only notices if it stops. */
const heardMs = 3_000;

interface Signals {
  /** Realtime delivered this signal. */
  heard(topic: SignalTopic, beats: number): void;
  /** Realtime is not available, or no longer. */
  lost(): void;
  stop(): void;
}

/**
 * Reads the signals at intervals, and calls `onSignal` for each topic that was rung since. Realtime is trusted from its
 * first delivery until polling finds a signal that it missed: a project may confirm a subscription and never deliver.
 */
export function followSignals(
  read: () => Promise<SignalBeats | null>,
  onSignal: (topic: SignalTopic) => void,
): Signals {
  const known = new Map<string, number>();
  let isTrusted = false;
  let isStopped = false;
  let timer: NodeJS.Timeout | null = null;

  async function look(): Promise<void> {
    const isFirst = known.size === 0;
    const before = new Map(known);
    const beats = await read();
    if (isStopped) return;
    for (const [topic, count] of Object.entries(beats ?? {})) {
      // What was heard during the reading is newer than it.
      if (count === known.get(topic) || known.get(topic) !== before.get(topic)) continue;
      known.set(topic, count);
      if (isFirst) continue;
      isTrusted = false;
      onSignal(topic as SignalTopic);
    }
    plan();
  }
  function plan(): void {
    if (timer) clearTimeout(timer);
    timer = setTimeout(() => void look(), isTrusted ? heardMs : deafMs);
  }
  void look();

  return {
    heard(topic, beats) {
      known.set(topic, beats);
      isTrusted = true;
      onSignal(topic);
    },
    lost() {
      if (isTrusted && !isStopped) {
        isTrusted = false;
        plan();
      }
    },
    stop() {
      isStopped = true;
      if (timer) clearTimeout(timer);
    },
  };
}
