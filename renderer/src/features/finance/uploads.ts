import { create } from "zustand";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import { toBase64 } from "../../lib/base64.ts";

/** Bytes sent at once; the contract allows 1 MiB. */
const CHUNK_BYTES = 1024 * 1024;
/** How often it is asked how far a copy is. */
const BROUGHT_EVERY_MS = 200;

export interface FileInHand {
  /** Our own key, before and after the console knows the file. */
  readonly key: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly sentBytes: number;
  readonly uploadId: string | null;
  readonly sha256: string | null;
  readonly status: "sending" | "ready" | "failed";
  readonly failure: Failure | null;
}

interface Uploads {
  readonly files: readonly FileInHand[];
  readonly add: (client: ConsoleClient, files: readonly File[]) => Promise<void>;
  /** Files that the program was given by the system, by their ids; one that is not known is left out. */
  readonly addBrought: (client: ConsoleClient, ids: readonly string[]) => Promise<void>;
  readonly drop: (key: string) => void;
  readonly clear: () => void;
}

const failed = (code: string, message: string, advice: string, details: string | null = null): Failure => ({
  code,
  message,
  advice,
  details,
});

/** A file that is in the list already is not taken a second time: a run of both would be refused. */
function asSecond(
  files: readonly FileInHand[],
  key: string,
  { status, sha256 }: Partial<FileInHand>,
): Partial<FileInHand> {
  const first = files.find((file) => file.key !== key && file.status === "ready" && file.sha256 === sha256);
  return status !== "ready" || !sha256 || !first
    ? {}
    : {
        status: "failed",
        failure: failed("same_file", "The same file is in the list already.", "It is taken once."),
      };
}

/** Files on their way to the console; they go on while the person looks at another desk. */
export const useUploads = create<Uploads>((set, get) => {
  const change = (key: string, patch: Partial<FileInHand>): void =>
    set((state) => ({
      files: state.files.map((file) =>
        file.key === key ? { ...file, ...patch, ...asSecond(state.files, key, patch) } : file,
      ),
    }));
  const isWanted = (key: string): boolean => get().files.some((file) => file.key === key);

  async function send(client: ConsoleClient, key: string, file: File): Promise<void> {
    const opened = await client.call("finance.open_upload", {
      file_name: file.name.slice(0, 500),
      size_bytes: file.size,
    });
    if (!opened.ok) return change(key, { status: "failed", failure: opened.error });
    let current = opened.value;
    change(key, { uploadId: current.upload_id });
    try {
      while (current.received_bytes < file.size) {
        if (!isWanted(key)) return;
        const offset = current.received_bytes;
        const base64 = await toBase64(file.slice(offset, offset + CHUNK_BYTES));
        const sent = await client.call("finance.upload_chunk", {
          upload_id: current.upload_id,
          offset_bytes: offset,
          base64,
        });
        if (!sent.ok) return change(key, { status: "failed", failure: sent.error });
        if (sent.value.received_bytes <= offset)
          return change(key, {
            status: "failed",
            failure: failed("stuck", "The file could not be sent on.", "Drop it and choose it again."),
          });
        current = sent.value;
        change(key, { sentBytes: current.received_bytes });
      }
    } catch (error) {
      return change(key, {
        status: "failed",
        failure: failed(
          "unreadable",
          "The file could not be read.",
          "It may have been moved or changed: choose it again.",
          String(error),
        ),
      });
    }
    change(key, { status: "ready", sentBytes: file.size, sha256: current.sha256 });
  }

  /** The console copies it by itself: here it is only shown how far that is. */
  async function followBrought(client: ConsoleClient, id: string): Promise<void> {
    if (isWanted(id)) return;
    for (let isFirst = true; isFirst || isWanted(id); isFirst = false) {
      const found = await client.call("finance.brought_file", { upload_id: id });
      if (!found.ok && isFirst) return;
      const {
        file_name: name,
        upload,
        failure,
      } = found.ok ? found.value : { file_name: "", upload: null, failure: found.error };
      const status = failure ? "failed" : upload?.sha256 ? "ready" : "sending";
      const now = {
        sizeBytes: upload?.size_bytes ?? 0,
        sentBytes: upload?.received_bytes ?? 0,
        uploadId: upload?.upload_id ?? null,
        sha256: upload?.sha256 ?? null,
        status,
        failure,
      } satisfies Partial<FileInHand>;
      if (isFirst) set((state) => ({ files: [...state.files, { key: id, name, ...now }] }));
      else change(id, now);
      if (status !== "sending") return;
      await new Promise((resolve) => setTimeout(resolve, BROUGHT_EVERY_MS));
    }
  }

  return {
    files: [],
    async add(client, files) {
      const fresh = files.map((file) => ({ key: crypto.randomUUID(), file }));
      set((state) => ({
        files: [
          ...state.files,
          ...fresh.map(({ key, file }): FileInHand => {
            const isEmpty = file.size === 0;
            return {
              key,
              name: file.name,
              sizeBytes: file.size,
              sentBytes: 0,
              uploadId: null,
              sha256: null,
              status: isEmpty ? "failed" : "sending",
              failure: isEmpty
                ? failed("empty_file", "The file is empty.", "Download the export from Stripe again.")
                : null,
            };
          }),
        ],
      }));
      for (const { key, file } of fresh) if (file.size > 0 && isWanted(key)) await send(client, key, file);
    },
    addBrought: async (client, ids) => void (await Promise.all(ids.map((id) => followBrought(client, id)))),
    drop: (key) => set((state) => ({ files: state.files.filter((file) => file.key !== key) })),
    clear: () => set({ files: [] }),
  };
});
