/** Reads one file of a reconciliation in a thread of its own, so that another is read meanwhile. */
import { createHash } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { memoryOf, readPart } from "../../../../shared/governance/reconciliation/part.ts";
import type { InputProblem, Part, PartJob } from "../../../../shared/governance/reconciliation/types.ts";
import type { Result } from "../../../../shared/governance/result.ts";
import { readChunks } from "./read-chunks.ts";

export interface PartWorkerData {
  readonly name: string;
  readonly path: string;
  readonly size_bytes: number;
  readonly job: PartJob;
}

export type FromPartWorker =
  | { readonly type: "chunk"; readonly rows: number; readonly bytes: number }
  | { readonly type: "part"; readonly part: Result<Part, InputProblem> };

const port = parentPort;
if (!port) throw new Error("part-worker.ts runs in a worker thread only.");
const say = (message: FromPartWorker, handedOver: ArrayBuffer[] = []): void =>
  port.postMessage(message, handedOver);

const { name, path, size_bytes, job } = workerData as PartWorkerData;
const part = await readPart(
  { name, size_bytes, chunks: readChunks(path) },
  job.of,
  { ...job.options, ...(job.is_hashed ? { create_sha256: () => createHash("sha256") } : {}) },
  (rows, bytes) => say({ type: "chunk", rows, bytes }),
);
say({ type: "part", part }, part.ok ? memoryOf(part.value) : []);
