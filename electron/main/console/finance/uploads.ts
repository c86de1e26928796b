/**
 * Files that a person brought: in pieces from a page, or by their path from the system (dropped on the program's icon).
 * They are kept in a private folder of the data folder until the console ends.
 */
import { createHash, type Hash, randomUUID } from "node:crypto";
import { closeSync, createReadStream, mkdirSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { basename, join } from "node:path";
import type { BroughtFile, Failure, Upload } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";

const maxUploads = 100;
const maxTotalBytes = 16_000_000_000;
const maxChunkBytes = 1024 * 1024;

interface Stored {
  readonly upload: Upload;
  readonly path: string;
  readonly hash: Hash;
  /** Null once it is whole. */
  readonly file: number | null;
}

export interface UploadedFile {
  readonly name: string;
  readonly path: string;
  readonly size_bytes: number;
}

export type Uploads = ReturnType<typeof createUploads>;

export function createUploads(dataDir: string) {
  const folder = join(dataDir, "uploads");
  const uploads = new Map<string, Stored>();
  /** Files that the system handed over, and why one could not be taken. */
  const brought = new Map<string, { readonly file_name: string; readonly failure: Failure | null }>();
  // Files left behind by a console that was killed.
  rmSync(folder, { recursive: true, force: true });
  const clean = (): void => {
    for (const { file } of uploads.values()) if (file !== null) closeSync(file);
    uploads.clear();
    rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", clean);

  const open = (fileName: string, sizeBytes: number, id: string = randomUUID()): Result<Upload, Failure> => {
    const total = [...uploads.values()].reduce((sum, { upload }) => sum + upload.size_bytes, sizeBytes);
    if (uploads.size >= maxUploads || total > maxTotalBytes) return fail(tooMuch);
    if (sizeBytes === 0) return fail(empty(fileName));
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, id);
    const upload: Upload = {
      upload_id: id,
      // A name to show, never a path to use.
      file_name: basename(fileName.replaceAll("\\", "/")) || "file",
      size_bytes: sizeBytes,
      received_bytes: 0,
      sha256: null,
    };
    uploads.set(id, { upload, path, hash: createHash("sha256"), file: openSync(path, "wx", 0o600) });
    return ok(upload);
  };

  return {
    open: (fileName: string, sizeBytes: number): Result<Upload, Failure> => open(fileName, sizeBytes),

    /** A file of this machine that the system handed over, copied here. Answers its id at once. */
    bring(path: string): string {
      const id = randomUUID();
      const fileName = basename(path);
      const refuse = (failure: Failure): void => void brought.set(id, { file_name: fileName, failure });
      brought.set(id, { file_name: fileName, failure: null });
      try {
        const found = statSync(path);
        const opened =
          found.isFile() && /\.csv$/i.test(fileName)
            ? open(fileName, found.size, id)
            : fail(noExport(fileName));
        if (!opened.ok) refuse(opened.error);
        else
          copy(uploads, path, id)
            .then((copied) => !copied.ok && refuse(copied.error))
            .catch((error: unknown) => refuse(unreadable(fileName, error)));
      } catch (error) {
        refuse(unreadable(fileName, error));
      }
      return id;
    },

    /** How far a file that the system handed over has come. */
    broughtFile(id: string): Result<BroughtFile, Failure> {
      const found = brought.get(id);
      return found ? ok({ ...found, upload: uploads.get(id)?.upload ?? null }) : fail(unknownUpload);
    },

    /** Pieces come in order; one that was received before is answered, not written again. */
    append(id: string, offsetBytes: number, base64: string): Result<Upload, Failure> {
      const stored = uploads.get(id);
      if (!stored) return fail(unknownUpload);
      const { upload } = stored;
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) return fail(badPiece("It is not base64."));
      const bytes = Buffer.from(base64, "base64");
      if (bytes.length > maxChunkBytes) return fail(badPiece("It is larger than 1 MiB."));
      if (offsetBytes + bytes.length <= upload.received_bytes) return ok(upload);
      if (offsetBytes !== upload.received_bytes) {
        return fail(badPiece(`It begins at ${offsetBytes}, ${upload.received_bytes} bytes are here.`));
      }
      return write(uploads, id, stored, bytes);
    },

    /** The files, if all of them are whole. */
    take(ids: readonly string[]): Result<UploadedFile[], Failure> {
      const files: UploadedFile[] = [];
      for (const id of new Set(ids)) {
        const stored = uploads.get(id);
        if (!stored) return fail(unknownUpload);
        if (stored.upload.sha256 === null) return fail(notWhole(stored.upload.file_name));
        files.push({
          name: stored.upload.file_name,
          path: stored.path,
          size_bytes: stored.upload.size_bytes,
        });
      }
      return ok(files);
    },

    close(): void {
      process.off("exit", clean);
      clean();
    },
  };
}

/** Adds a piece to a file. */
function write(
  uploads: Map<string, Stored>,
  id: string,
  { upload, path, hash, file }: Stored,
  bytes: Buffer,
): Result<Upload, Failure> {
  if (upload.received_bytes + bytes.length > upload.size_bytes || file === null)
    return fail(badPiece("The file is longer than was announced."));
  try {
    for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
  } catch (error) {
    return fail({
      code: "disk_full",
      message: "The file could not be kept here.",
      advice: "Make room on the disk, then bring it again.",
      details: (error as Error).message,
    });
  }
  hash.update(bytes);
  const received = upload.received_bytes + bytes.length;
  const isWhole = received === upload.size_bytes;
  if (isWhole) closeSync(file);
  const next: Upload = {
    ...upload,
    received_bytes: received,
    sha256: isWhole ? hash.digest("hex") : null,
  };
  uploads.set(id, { upload: next, path, hash, file: isWhole ? null : file });
  return ok(next);
}

async function copy(uploads: Map<string, Stored>, path: string, id: string): Promise<Result<null, Failure>> {
  for await (const bytes of createReadStream(path)) {
    const stored = uploads.get(id);
    // The console ended meanwhile.
    if (!stored) return fail(unknownUpload);
    const written = write(uploads, id, stored, bytes as Buffer);
    if (!written.ok) return written;
  }
  return uploads.get(id)?.upload.sha256 === null ? fail(notWhole(basename(path))) : ok(null);
}

const tooMuch: Failure = {
  code: "too_large",
  message: "There is too much to keep at once.",
  advice: "Bring fewer or smaller files; restarting the console forgets earlier ones.",
  details: null,
};
const unknownUpload: Failure = {
  code: "not_found",
  message: "This file is not here any more.",
  advice: "Add the file again: files are kept only until the console is closed.",
  details: null,
};
const empty = (name: string): Failure => ({
  code: "bad_input",
  message: `${name} is empty.`,
  advice: "Export it again from Stripe.",
  details: null,
});
const notWhole = (name: string): Failure => ({
  code: "bad_input",
  message: `${name} has not arrived whole.`,
  advice: "Wait until it has, or bring it again.",
  details: null,
});
const noExport = (name: string): Failure => ({
  code: "bad_input",
  message: `${name} is not one of Stripe's exports.`,
  advice: "Stripe's exports are CSV files.",
  details: null,
});
const unreadable = (name: string, error: unknown): Failure => ({
  code: "unreadable",
  message: `${name} could not be read.`,
  advice: "It may have been moved, or this account may not read it.",
  details: (error as Error).message,
});
const badPiece = (details: string): Failure => ({
  code: "invalid_argument",
  message: "A piece of the file does not fit.",
  advice: "Bring the file again.",
  details,
});
