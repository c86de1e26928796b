/** Compares the texts of the sources with the catalogue. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  catalogueOf,
  codesCatalogue,
  databaseCatalogue,
  filesWithTexts,
  readCatalogues,
  repositoryDir,
} from "./files.ts";
import { findTexts } from "./find-texts.ts";

interface MissingText {
  readonly text: string;
  readonly file: string;
  readonly line: number;
  readonly catalogue: string;
}
interface CatalogueText {
  readonly text: string;
  readonly catalogue: string;
}
interface Comparison {
  readonly catalogues: ReturnType<typeof readCatalogues>;
  readonly missing: readonly MissingText[];
  /** In the catalogue without its German text. */
  readonly empty: readonly CatalogueText[];
  /** In the catalogue, and in no source. */
  readonly unused: readonly CatalogueText[];
  /** In two catalogues. */
  readonly twice: readonly CatalogueText[];
}

export function compareCatalogue(): Comparison {
  const catalogues = readCatalogues();
  const known = new Map<string, string>();
  const twice: CatalogueText[] = [];
  for (const [catalogue, entries] of catalogues)
    for (const text of Object.keys(entries)) {
      if (known.has(text)) twice.push({ text, catalogue });
      known.set(text, catalogue);
    }
  const used = new Set<string>();
  const missing: MissingText[] = [];
  for (const file of filesWithTexts())
    for (const { text, line } of findTexts(readFileSync(join(repositoryDir, file), "utf8"), file).texts) {
      if (!used.has(text) && !known.has(text))
        missing.push({ text, file, line, catalogue: catalogueOf(file) });
      used.add(text);
    }
  const all = [...catalogues].flatMap(([catalogue, entries]) =>
    Object.entries(entries).map(([text, german]) => ({ text, german, catalogue })),
  );
  return {
    catalogues,
    missing,
    empty: all.filter(({ german }) => german === ""),
    unused: all.filter(
      ({ text, catalogue }) =>
        catalogue !== codesCatalogue &&
        catalogue !== databaseCatalogue &&
        !used.has(text.split(" @@ ")[0] ?? text),
    ),
    twice,
  };
}
