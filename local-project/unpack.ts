/** Puts a database that PGlite packed into a folder: by PGlite itself each of its 1,500 files takes ten times as long. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, normalize, sep } from "node:path";

const BLOCK = 512;
const FOLDER = "5".charCodeAt(0);

/** The archive as PGlite's `dumpDataDir` makes it: for each file a header of one block, then its bytes in whole blocks. */
export function unpack(archive: Uint8Array, folder: string): void {
  const text = (from: number, length: number): string =>
    Buffer.from(archive.buffer, archive.byteOffset + from, length)
      .toString("utf8")
      .replace(/\0.*$/s, "");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const made = new Set<string>();
  for (let at = 0; at + BLOCK <= archive.length && archive[at] !== 0; ) {
    const path = normalize(`./${text(at, 100)}`);
    const size = Number.parseInt(text(at + 124, 12), 8);
    if (!Number.isInteger(size) || path.split(sep).includes(".."))
      throw new Error("The packed database is damaged.");
    const isFolder = archive[at + 156] === FOLDER;
    const parent = isFolder ? path : join(path, "..");
    if (!made.has(parent)) mkdirSync(join(folder, parent), { recursive: true, mode: 0o700 });
    made.add(parent);
    at += BLOCK;
    if (!isFolder) writeFileSync(join(folder, path), archive.subarray(at, at + size), { mode: 0o600 });
    at += Math.ceil(size / BLOCK) * BLOCK;
  }
}
