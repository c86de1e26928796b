/** A file on the disk as the reconciliation takes it. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { InputFile, PartReading } from "../../../../shared/governance/reconciliation/index.ts";
import type { FromPartWorker, PartWorkerData } from "./part-worker.ts";
import { readChunks } from "./read-chunks.ts";

/** Built, the worker lies beside the file that this one is bundled into. */
const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./part-worker.ts" : "./reconciliation-part-worker.js",
  import.meta.url,
);

/**
 * A file that is read chunk by chunk, or in a thread of its own where several large ones go side by side. With one
 * processor a thread would only cost its start.
 */
export function openInputFile(name: string, path: string, sizeBytes: number): InputFile {
  const file = { name, size_bytes: sizeBytes, chunks: readChunks(path) };
  if (availableParallelism() === 1) return file;
  return {
    ...file,
    read_apart: (job, onChunk) => startReading({ name, path, size_bytes: sizeBytes, job }, onChunk),
  };
}

function startReading(
  workerData: PartWorkerData,
  onChunk: (rows: number, bytes: number) => void,
): PartReading {
  const worker = new Worker(workerUrl, { workerData });
  const done: PartReading["done"] = new Promise((resolve, reject) => {
    worker.on("message", (message: FromPartWorker) => {
      if (message.type === "part") return resolve(message.part);
      try {
        onChunk(message.rows, message.bytes);
      } catch (error) {
        reject(error);
      }
    });
    worker.on("error", reject);
    worker.on("exit", (code) =>
      reject(new Error(`The thread that read ${workerData.name} ended without an answer (exit ${code}).`)),
    );
  });
  return { done, stop: async () => void (await worker.terminate()) };
}
