/** Signals of abuse in a stream of messages. */
export * from "./watch.ts";
