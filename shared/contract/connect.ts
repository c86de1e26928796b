/** The transport that is there. */
import type { ConsoleClient } from "./client.ts";
import { type ConsoleBridge, createBridgeClient } from "./client-bridge.ts";
import { createWebSocketClient } from "./client-websocket.ts";

/** The client of the window this runs in: Electron's bridge where the preload put one, else a WebSocket. */
export function connectConsole(): ConsoleClient {
  const bridge = (globalThis as { consoleBridge?: ConsoleBridge }).consoleBridge;
  return bridge ? createBridgeClient(bridge) : createWebSocketClient();
}
