import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readChunks } from "./read-chunks.ts";

describe("reading a file in chunks", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "chunks-"));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it.each([0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_003])(
    "gives every byte of %i once and in order",
    async (length) => {
      const bytes = randomBytes(length);
      const path = join(folder, "file");
      writeFileSync(path, bytes);
      const seen = createHash("sha256");
      for await (const chunk of readChunks(path)) {
        expect(chunk.length).toBeGreaterThan(0);
        seen.update(chunk);
        // A reader that takes its time, so that the next chunk is there before this one is left.
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(seen.digest("hex")).toBe(createHash("sha256").update(bytes).digest("hex"));
    },
  );

  it("closes the file when its reader stops early, and throws when there is none", async () => {
    const path = join(folder, "file");
    writeFileSync(path, randomBytes(3 << 20));
    for await (const chunk of readChunks(path)) {
      expect(chunk.length).toBe(1 << 20);
      break;
    }
    rmSync(path);
    await expect(readChunks(path).next()).rejects.toMatchObject({ code: "ENOENT" });
  });
});
