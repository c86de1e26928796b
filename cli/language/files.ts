/** Which files have texts for people, and the catalogue of these texts. */
import { globSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const repositoryDir = fileURLToPath(new URL("../..", import.meta.url));
export const catalogueDir = join(repositoryDir, "shared/language/de");

/** Files whose texts the build step looks up: the screens, and those of the core that the screens show. */
const spoken = [
  /^renderer\/src\//,
  /^shared\/contract\//,
  /^shared\/governance\/rules\/(?:words|facts|problems|parse|receipt|decide|difference|warnings)\.ts$/,
  /^shared\/governance\/(?:configuration|alerts|money)\//,
  /^shared\/governance\/reconciliation\/classes\.ts$/,
];
/** Files that make texts elsewhere, in English: the screen looks them up as it shows them. */
const madeElsewhere = [
  /^electron\/main\/(?:backend|console|keychain|shell)\//,
  /^electron\/main\/store\/database\.ts$/,
  /^shared\/governance\/ledger\/statement\.ts$/,
  /^shared\/governance\/pricing\/prices\.ts$/,
  /^shared\/governance\/reconciliation\//,
];
const silent = [
  /\.test\.tsx?$/,
  /\.d\.ts$/,
  /^renderer\/src\/lib\/language\.ts$/,
  /\/first-programs\.ts$/,
  // Tables of Stripe's own words, and files to print or to keep.
  /\/reconciliation\/(?:categories|columns|text|export-forms)\.ts$/,
  /\/finance\/exports-[a-z]+\.ts$/,
];

const isOneOf = (file: string, of: readonly RegExp[]): boolean =>
  of.some((each) => each.test(file)) && !silent.some((each) => each.test(file));
export const hasTexts = (file: string): boolean => isOneOf(file, spoken);
const makesTexts = (file: string): boolean => !hasTexts(file) && isOneOf(file, madeElsewhere);

/** Every file with texts for people. */
export const filesWithTexts = (): readonly string[] =>
  globSync(["renderer/src/**/*.{ts,tsx}", "shared/**/*.ts", "electron/main/**/*.ts"], { cwd: repositoryDir })
    .map((file) => file.replaceAll("\\", "/"))
    .filter((file) => hasTexts(file) || makesTexts(file))
    .sort();

/** The catalogue that holds a file's texts. */
export function catalogueOf(file: string): string {
  if (makesTexts(file)) return file.includes("/reconciliation/") ? "differences.json" : "console.json";
  const desk = /^renderer\/src\/features\/([a-z]+)\//.exec(file)?.[1];
  return `${desk ?? (file.startsWith("renderer/") ? "screens" : "core")}.json`;
}

/** Texts of the database: their source is SQL, and a test looks for them there. */
export const databaseCatalogue = "database.json";
/** Words that codes are shown as (`daily_limit`): no source has them as texts. */
export const codesCatalogue = "codes.json";

/** The catalogue, file by file: `users.json` → English → German. */
export function readCatalogues(): ReadonlyMap<string, Readonly<Record<string, string>>> {
  return new Map(
    readdirSync(catalogueDir)
      .filter((name) => name.endsWith(".json"))
      .sort()
      .map((name) => [
        name,
        JSON.parse(readFileSync(join(catalogueDir, name), "utf8")) as Record<string, string>,
      ]),
  );
}

/** Texts that have another translation at some places: `open @@ finance/` is that of files with `finance/` in their name. */
export function specialPlaces(): Map<string, string[]> {
  const places = new Map<string, string[]>();
  for (const entries of readCatalogues().values())
    for (const key of Object.keys(entries)) {
      const [text = "", place] = key.split(" @@ ");
      if (place) places.set(text, [...(places.get(text) ?? []), place]);
    }
  return places;
}
