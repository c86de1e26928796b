/** The screen's side of the preload: one named function for each operation and stream. */
import type { ConsoleClient } from "./client.ts";
import type { Reply } from "./basics.ts";
import type { OperationName, StreamName } from "./operations.ts";

/** What the preload puts into the window as `consoleBridge`. */
export interface ConsoleBridge {
  readonly operations: Readonly<Record<OperationName, (input: unknown) => Promise<Reply<unknown>>>>;
  readonly streams: Readonly<
    Record<StreamName, (input: unknown, onItem: (item: unknown) => void) => () => void>
  >;
}

export function createBridgeClient(bridge: ConsoleBridge): ConsoleClient {
  return {
    // The console parsed what it sends by the same map: the types hold.
    call: (name, input) => bridge.operations[name](input) as Promise<Reply<never>>,
    follow: (name, input, onItem) => bridge.streams[name](input, onItem as (item: unknown) => void),
    onStatus(listener) {
      listener("open");
      return () => {};
    },
  };
}
