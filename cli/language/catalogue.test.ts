import { describe, expect, it } from "vitest";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { germanCatalogue } from "../../shared/language/german.ts";
import { configFields } from "../../shared/governance/configuration/fields.ts";
import { settingFields } from "../../shared/governance/configuration/setting-fields.ts";
import { databaseCatalogue, hasTexts, repositoryDir } from "./files.ts";
import { findTexts } from "./find-texts.ts";
import { compareCatalogue } from "./compare.ts";
import { sameInGerman } from "./same-in-german.ts";

const { catalogues, missing, empty, unused, twice } = compareCatalogue();
const entries = [...catalogues].flatMap(([catalogue, texts]) =>
  Object.entries(texts).map(([text, german]) => ({ catalogue, text, german })),
);

/** What is put into a text: each name once. */
const values = (text: string): readonly string[] => [
  ...new Set(
    Array.from(
      text
        .replaceAll("{{", "")
        .replaceAll("}}", "")
        .matchAll(/\{(\w+)\}/g),
      ([, name]) => name ?? "",
    ),
  ),
];

describe("the German catalogue", () => {
  it("has German words for every text that the screens, the core and the console's process show", () => {
    const lines = [
      ...missing.map(({ text, file, line }) => `${file}:${line}  ${text}`),
      ...empty.map(({ text, catalogue }) => `shared/language/de/${catalogue}  ${text}`),
    ];
    expect(
      lines,
      "No German yet. `npm run language -- --write` puts these texts into shared/language/de/; write their German there.",
    ).toEqual([]);
  });

  it("has the words of each option of a field, as its file is read", () => {
    const files = globSync("shared/governance/{configuration,alerts}/*.ts", { cwd: repositoryDir });
    const texts = new Set(
      files
        .filter(hasTexts)
        .flatMap((file) => findTexts(readFileSync(join(repositoryDir, file), "utf8"), file).texts)
        .map(({ text }) => text),
    );
    const options = [...Object.values(configFields).flat(), ...settingFields.values()].flatMap(({ type }) =>
      type.is === "choice" || type.is === "choices" ? type.of.map(([, words]) => words) : [],
    );
    expect(options.length).toBeGreaterThan(20);
    expect(options.filter((words) => !texts.has(words))).toEqual([]);
  });

  it("has words for the rules, alerts, kinds and reasons that the presets name", () => {
    const names = globSync("supabase/presets/*.yaml", { cwd: repositoryDir }).flatMap((file) =>
      Array.from(
        readFileSync(join(repositoryDir, file), "utf8").matchAll(
          /\b(?:rule_name|alert_name|rule_type|reason): *([a-z]\w*)/g,
        ),
        ([, name]) => (name ?? "").replaceAll("_", " "),
      ),
    );
    expect(names.length).toBeGreaterThan(20);
    const german = new Set(entries.map(({ text }) => text));
    expect([...new Set(names)].filter((name) => !german.has(name))).toEqual([]);
  });

  it("has no text that is in no source any more", () => {
    expect(unused, "`npm run language -- --write` takes these out.").toEqual([]);
  });

  it("has of the database what its functions say", () => {
    const said = globSync("supabase/schemas/*.sql", { cwd: repositoryDir })
      .map((file) => readFileSync(join(repositoryDir, file), "utf8"))
      .join("\n")
      .replaceAll("''", "\u2019\u2019")
      // Literals after each other are one.
      .replace(/'\s*(?:\|\|)?\s*'/g, "")
      .replaceAll("\u2019\u2019", "'")
      .replace(/\s+/g, " ");
    const gone = Object.keys(catalogues.get(databaseCatalogue) ?? {}).filter((text) =>
      text
        .replace(/\.$/, "")
        .split(/\{\w+\}/)
        .some((part) => !said.includes(part.trim())),
    );
    expect(gone).toEqual([]);
  });

  it("is loaded whole", async () => {
    const loaded = await germanCatalogue();
    expect(Object.keys(loaded).length).toBe(entries.length);
  });

  it("has each text once", () => {
    expect(twice).toEqual([]);
  });

  it("puts the same values into the German text as into the English one", () => {
    const wrong = entries.filter(({ text, german }) => {
      const [here, there] = [values(text), values(german)];
      return here.some((name) => !there.includes(name)) || there.some((name) => !here.includes(name));
    });
    expect(wrong).toEqual([]);
  });

  it("has a form for one and for several wherever the English text has", () => {
    const forms = (text: string): number => text.split(" | ").length;
    expect(entries.filter(({ text, german }) => forms(text) !== forms(german))).toEqual([]);
  });

  it("leaves no text in English but those that are the same in German", () => {
    const same = entries.filter(
      ({ text, german }) =>
        text.split(" @@ ")[0] === german && /\p{L}{2}/u.test(german.replace(/\{\w+\}/g, "")),
    );
    expect(same.filter(({ text }) => !sameInGerman.has(text)).map(({ text }) => text)).toEqual([]);
  });

  it("speaks to the person with Sie", () => {
    const informal = entries.filter(({ german }) =>
      /(?<![\w-])(?:du|deine?[nmrs]?|dich|dir)(?![\w-])/iu.test(german),
    );
    expect(informal).toEqual([]);
  });
});
