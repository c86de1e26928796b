/** The person's language on the screens: what the build step calls in place of each text, and how it is chosen. */
import { createElement, Fragment, type ReactNode } from "react";
import {
  currentLanguage,
  cut,
  type Language,
  languageOf,
  type LanguageInUse,
  languages,
  localeOf,
  lookUp,
  setLanguage,
} from "../../../shared/language/index.ts";
import { germanCatalogue } from "../../../shared/language/german.ts";
import { isOneOf, recall, remember } from "./remember.ts";

export {
  count,
  currentLocale,
  currentLocale as locale,
  currentLanguage,
  say,
  translated,
} from "../../../shared/language/index.ts";

/** What a person chose; `system` follows the machine. */
export type LanguageChoice = "system" | Language;

/** A text with elements in it, in the order that the language has. */
export function parts(text: string, values: Readonly<Record<string, ReactNode>>): ReactNode {
  return createElement(
    Fragment,
    null,
    ...cut(lookUp(text)).map((part, index) => (index % 2 === 0 ? part : values[part])),
  );
}

const chosen = (): LanguageChoice | "pseudo" =>
  recall("language", "system", isOneOf<LanguageChoice | "pseudo">("system", "pseudo", ...languages));

const inUse = (choice: LanguageChoice | "pseudo"): LanguageInUse =>
  choice === "system" ? languageOf(navigator.language) : choice;

/** Before anything else of the page runs: texts are looked up as its modules are loaded. */
export async function startLanguage(): Promise<void> {
  const language = inUse(chosen());
  setLanguage(
    language,
    localeOf(language === "pseudo" ? "en" : language, navigator.languages),
    language === "en" ? {} : await germanCatalogue(),
  );
  document.documentElement.lang = language === "pseudo" ? "en" : language;
}

/** Puts a choice into effect. The page is loaded again where it changes the language: every text is made again. */
export function chooseLanguage(choice: LanguageChoice): void {
  if (chosen() === "pseudo") return;
  remember("language", choice);
  // As it will be read then: where nothing can be kept the page would be loaded again for ever.
  if (inUse(chosen()) !== currentLanguage()) location.reload();
}
