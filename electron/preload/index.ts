/**
 * The sandboxed bridge: one named function for each operation and stream of the contract. The page never gets
 * ipcRenderer, a channel or an event.
 */
import { contextBridge, ipcRenderer } from "electron";
import type { ConsoleBridge } from "../../shared/contract/client-bridge.ts";
import { operationNames, streamNames } from "../../shared/contract/names.ts";

let lastId = 0;
const receivers = new Map<number, (item: unknown) => void>();

ipcRenderer.on("console:item", (_event, id: number, item: unknown) => receivers.get(id)?.(item));

const bridge: ConsoleBridge = {
  operations: Object.fromEntries(
    operationNames.map((name) => [name, (input: unknown) => ipcRenderer.invoke("console:call", name, input)]),
  ) as ConsoleBridge["operations"],
  streams: Object.fromEntries(
    streamNames.map((name) => [
      name,
      (input: unknown, onItem: (item: unknown) => void) => {
        const id = ++lastId;
        receivers.set(id, onItem);
        ipcRenderer.send("console:follow", id, name, input);
        return () => {
          receivers.delete(id);
          ipcRenderer.send("console:unfollow", id);
        };
      },
    ]),
  ) as ConsoleBridge["streams"],
};

contextBridge.exposeInMainWorld("consoleBridge", bridge);
