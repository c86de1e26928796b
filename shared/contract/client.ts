/** What a transport gives the screen. */
import type { Reply } from "./basics.ts";
import type {
  OperationInput,
  OperationName,
  OperationOutput,
  StreamInput,
  StreamItem,
  StreamName,
} from "./operations.ts";

/** The way to the console. unauthorized: this page's session is unknown, only a new link helps. */
export type TransportStatus = "connecting" | "open" | "lost" | "unauthorized";

export interface ConsoleClient {
  call<N extends OperationName>(name: N, input: OperationInput<N>): Promise<Reply<OperationOutput<N>>>;
  /** Follows a stream until the returned function is called. `onItem` is never called twice for one feed event. */
  follow<N extends StreamName>(
    name: N,
    input: StreamInput<N>,
    onItem: (item: StreamItem<N>) => void,
  ): () => void;
  /** Called with the status now, and at each change, until the returned function is called. */
  onStatus(listener: (status: TransportStatus) => void): () => void;
}
