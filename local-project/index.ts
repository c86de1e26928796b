/**
 * The local project: a Supabase-compatible endpoint for `rpc()` and `postgres_changes` on this machine, in a worker
 * thread so that neither PGlite nor HTTP holds up the thread that started it.
 */
import { Worker } from "node:worker_threads";
import type { Row, RunSql } from "./database.ts";
import type { LocalProjectOptions, ProjectAddress } from "./project.ts";
import type { HostMessage, WorkerMessage } from "./worker.ts";

export interface LocalProject extends ProjectAddress {
  /** Statements in the project's own database, as one transaction: for the sample data alone. */
  readonly run: RunSql;
  /** Ends calls under way, writes everything and lets the data folder go. Safe to call twice. */
  stop(): Promise<void>;
  /** Settles when the project ends: null after `stop`, else what went wrong. */
  readonly ended: Promise<Error | null>;
}

export interface StartOptions extends LocalProjectOptions {
  /** The worker's entry where the program is bundled. */
  readonly workerUrl?: URL;
  /** Called with what happens, in sentences that hold no key. */
  readonly log?: (sentence: string) => void;
}

/** It could not start. `isExpected`: the message is one sentence for the person who started it. */
export class LocalProjectError extends Error {
  override readonly name = "LocalProjectError";
  readonly isExpected: boolean;

  constructor(message: string, isExpected: boolean) {
    super(message);
    this.isExpected = isExpected;
  }
}

export async function startLocalProject(options: StartOptions): Promise<LocalProject> {
  const { workerUrl = new URL("./worker.ts", import.meta.url), log = () => {}, ...workerData } = options;
  // Flags of the process that starts it (an --eval, a debugger) are not the worker's.
  const worker = new Worker(workerUrl, { workerData, execArgv: [], stdout: true, stderr: true });
  worker.stdout.resume();
  worker.stderr.setEncoding("utf8").on("data", (text: string) => log(text.trimEnd()));

  let stopping = false;
  let problem: Error | null = null;
  const ended = new Promise<Error | null>((resolve) => {
    worker.once("error", (error) => {
      problem = error;
    });
    worker.once("exit", (code) => {
      resolve(
        problem ?? (stopping && code === 0 ? null : new Error(`The local project ended with ${code}.`)),
      );
    });
  });
  const post = (message: HostMessage): void => worker.postMessage(message);
  const waiting = new Map<number, { resolve(rows: Row[]): void; reject(error: Error): void }>();
  let runs = 0;
  void ended.then((error) => {
    for (const run of waiting.values()) run.reject(error ?? new Error("The local project was stopped."));
    waiting.clear();
  });

  const address = await new Promise<ProjectAddress>((resolve, reject) => {
    worker.on("message", (message: WorkerMessage) => {
      if (message.type === "log") log(message.sentence);
      else if (message.type === "ready") resolve(message.address);
      else if (message.type === "rows" || message.type === "refused") {
        const run = waiting.get(message.id);
        waiting.delete(message.id);
        if (message.type === "rows") run?.resolve(message.rows);
        else run?.reject(new Error(message.message));
      } else {
        problem = new LocalProjectError(message.message, message.isExpected);
        reject(problem);
      }
    });
    void ended.then((error) => reject(error ?? new Error("The local project was stopped while it started.")));
  });
  return {
    ...address,
    ended,
    run: (sql) =>
      new Promise((resolve, reject) => {
        if (stopping) return reject(new Error("The local project was stopped."));
        waiting.set(++runs, { resolve, reject });
        post({ type: "run", id: runs, sql });
      }),
    async stop() {
      if (!stopping) post({ type: "stop" });
      stopping = true;
      const error = await ended;
      if (error) throw error;
    },
  };
}
