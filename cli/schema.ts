/**
 * `npm run schema`: writes the catalogue of users' words into supabase/schemas, and the baseline migration of 0.1.0 from
 * there, where every object is defined once.
 * `--check` writes nothing and fails when the migration is out of date. From the first release on the baseline is
 * history: edit the schema file, write the next migration by hand; a test keeps both ways equal.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  type UserLanguage,
  userLanguages,
  type UserWord,
  userWords,
} from "../shared/governance/rules/user-words.ts";

const schemasDir = fileURLToPath(new URL("../supabase/schemas", import.meta.url));
const baseline = fileURLToPath(
  new URL("../supabase/migrations/20261128000000_governance_baseline.sql", import.meta.url),
);

const wordsRoom = fileURLToPath(new URL("../supabase/schemas/07_user_words.sql", import.meta.url));

/** One word of the catalogue, in lines of at most 120 columns. */
function writeWord(word: string, text: string): string {
  const quoted = (part: string): string => `'${part.replaceAll("'", "''")}'`;
  const line = `    when '${word}' then ${quoted(text)}`;
  if (line.length <= 120) return line;
  const parts = text.match(/.{1,90}(?:\s|$)/g) ?? [text];
  return `    when '${word}' then\n      ${parts.map(quoted).join("\n      ")}`;
}

/** The words of one language. */
function writeLanguage(language: UserLanguage): string {
  const words = Object.entries(userWords[language]) as [UserWord, string][];
  return `create function governance.user_words_${language}(p_word text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_word
${words.map(([word, text]) => writeWord(word, text)).join("\n")}
  end
$$;
comment on function governance.user_words_${language}(text) is 'What user_word answers for ${language}.';
`;
}

/** The catalogue of what users read, as the database has it. */
function writeWords(): string {
  // English is what every other language falls back to.
  const others = userLanguages.filter((language) => language !== "en");
  return `-- What users read, in each language.
-- Written by \`npm run schema\` from shared/governance/rules/user-words.ts: edit there.

create function governance.user_languages() returns text[]
  language sql immutable parallel safe set search_path = '' as $$
  select '{${userLanguages.join(",")}}'::text[]
$$;
comment on function governance.user_languages() is 'Languages in which users are written to.';

${[...others, "en" as const].map(writeLanguage).join("\n")}
create function governance.user_word(p_word text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_language
${others.map((language) => `    when '${language}' then governance.user_words_${language}(p_word)`).join("\n")}
    else governance.user_words_en(p_word)
  end
$$;
comment on function governance.user_word(text, text) is
  'A text of the catalogue, in English where the language has none; null for a word that is not in it. {name} stands '
  'for a value: governance.say puts it in.';
`;
}

/**
 * The whole schema as one script, the rooms in the order of their file names. Bodies are not checked while they are
 * created: a function may call one that a later room defines. A test checks each body afterwards.
 */
export function readSchema(folder = schemasDir): string {
  const rooms = readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .sort();
  return [
    "-- Written by `npm run schema` from supabase/schemas: edit there.",
    "select set_config('check_function_bodies', 'off', true);",
    ...rooms.map((room) => `\n-- schemas/${room}\n${readFileSync(`${folder}/${room}`, "utf8").trimEnd()}`),
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });
  const words = writeWords();
  if (!values.check) {
    writeFileSync(wordsRoom, words);
    writeFileSync(baseline, readSchema());
    console.log("Wrote supabase/migrations/20261128000000_governance_baseline.sql.");
  } else if (readFileSync(wordsRoom, "utf8") !== words || readFileSync(baseline, "utf8") !== readSchema()) {
    console.error("The baseline migration or the users' words are out of date. Run: npm run schema");
    process.exitCode = 1;
  }
}
