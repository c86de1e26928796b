/** The console: everything between the database and the screen, without Electron. */
import type { Failure } from "../../../shared/contract/index.ts";
import { operationNames } from "../../../shared/contract/index.ts";
import { createDispatcher, type Dispatcher, type Handlers, type Log, type Sources } from "./dispatch.ts";

export interface ConsoleOptions {
  readonly dataDir: string;
  readonly log: Log;
}

export interface Console {
  readonly dispatcher: Dispatcher;
  close(): Promise<void>;
}

const notYet: Failure = {
  code: "not_connected",
  message: "No project is connected yet.",
  advice: "Wait until the local project has started.",
  details: null,
};

export function createConsole(options: ConsoleOptions): Console {
  const handlers = Object.fromEntries(
    operationNames.map((name) => [name, () => ({ ok: false as const, error: notYet })]),
  ) as unknown as Handlers;
  const sources = {
    connection: (_input: unknown, emit: (item: unknown) => void) => {
      emit({
        profile: null,
        status: "starting",
        since: new Date().toISOString(),
        failure: null,
        project: null,
        last_sync_at: null,
        sample_traffic: null,
      });
      return () => {};
    },
  } as unknown as Sources;
  return { dispatcher: createDispatcher(handlers, sources, options.log), close: async () => {} };
}
