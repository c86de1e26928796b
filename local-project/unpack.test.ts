import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { unpack } from "./unpack.ts";

const home = mkdtempSync(join(tmpdir(), "unpack-"));
const folder = join(home, "data");
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** A file, or where there is no text a folder, as PGlite packs it. */
function packed(name: string, text?: string): Buffer {
  const bytes = Buffer.from(text ?? "");
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write(`${bytes.length.toString(8).padStart(11, "0")} `, 124);
  header.write(text === undefined ? "5" : "0", 156);
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}
const end = Buffer.alloc(1024);

it("puts files and folders, empty ones too, where they were", () => {
  const whole = "x".repeat(512);
  unpack(
    Buffer.concat([
      packed("/PG_VERSION", "18\n"),
      packed("/base"),
      packed("/base/5/1", whole),
      packed("/base/5/2", ""),
      packed("/pg_wal/summaries"),
      end,
    ]),
    folder,
  );
  expect(readFileSync(join(folder, "PG_VERSION"), "utf8")).toBe("18\n");
  expect(readFileSync(join(folder, "base/5/1"), "utf8")).toBe(whole);
  expect(readFileSync(join(folder, "base/5/2"), "utf8")).toBe("");
  expect(existsSync(join(folder, "pg_wal/summaries"))).toBe(true);
});

it("writes nothing outside the folder", () => {
  expect(() => unpack(Buffer.concat([packed("/../escaped", "x"), end]), folder)).toThrow("damaged");
  expect(existsSync(join(home, "escaped"))).toBe(false);
});
