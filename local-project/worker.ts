/** The worker thread's entry: serves one project until it is stopped. */
import { parentPort, workerData } from "node:worker_threads";
import type { Row } from "./database.ts";
import { isExpected, type LocalProjectOptions, type ProjectAddress, serveProject } from "./project.ts";

/** Messages from the worker to the thread that started it. */
export type WorkerMessage =
  | { readonly type: "ready"; readonly address: ProjectAddress }
  | { readonly type: "failed"; readonly message: string; readonly isExpected: boolean }
  | { readonly type: "log"; readonly sentence: string }
  /** What `run` answers: rows, or why not. */
  | { readonly type: "rows"; readonly id: number; readonly rows: Row[] }
  | { readonly type: "refused"; readonly id: number; readonly message: string };

/** Messages from that thread to the worker. */
export type HostMessage =
  | { readonly type: "stop" }
  | { readonly type: "run"; readonly id: number; readonly sql: string };

const port = parentPort;
if (!port) throw new Error("worker.ts runs in a worker thread only.");
const post = (message: WorkerMessage): void => port.postMessage(message);

try {
  const project = await serveProject(workerData as LocalProjectOptions, (sentence) =>
    post({ type: "log", sentence }),
  );
  const stop = (): void => {
    project.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        post({ type: "failed", message: (error as Error).message, isExpected: false });
        process.exit(1);
      },
    );
  };
  port.on("message", (message: HostMessage) => {
    if (message.type === "stop") return stop();
    const { id, sql } = message;
    project.run(sql).then(
      (rows) => post({ type: "rows", id, rows }),
      (error: unknown) => post({ type: "refused", id, message: (error as Error).message }),
    );
  });
  post({ type: "ready", address: project.address });
} catch (error) {
  const { message, stack } = error as Error;
  post({
    type: "failed",
    message: isExpected(error) ? message : (stack ?? message),
    isExpected: isExpected(error),
  });
  port.close();
}
