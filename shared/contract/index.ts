export * from "./client.ts";
export * from "./client-bridge.ts";
export * from "./client-websocket.ts";
export * from "./finance.ts";
export * from "./names.ts";
export * from "./operations.ts";
export * from "./records.ts";
export * from "./wire.ts";
