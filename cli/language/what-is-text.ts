/** Which places of the sources hold text for people. What is not named here is text where it reads as a phrase. */

/** Attributes and properties whose value is shown, even where it is one small word. */
const textNames = new Set(
  `aria-label about action_words advice alt body button busy button_label calm caption change closeLabel confirm
  description detailLabel done empty error failed fix first group header hint kept label last lead
  long many meaning means message missing more name none note nothing notes one placeholder plural said
  sentence relation several short singular subtitle summary text title tooltip what why word words
  closeButtonLabel nothingFoundMessage`.split(/\s+/),
);
/** Attributes and properties that are never shown. */
const codeNames = new Set(
  `accept act aria-haspopup aria-labelledby aria-describedby aria-live autoComplete className color
  component d data-testid data-tone display fontFamily fontFamilyMonospace form gridTemplateColumns href id
  inputMode install key kind margin operation padding primaryColor radius rel role rpc shadow shadows size style styles
  target tone transform transition type variant viewBox whiteSpace justifyContent alignItems flexDirection
  background border borderBottom boxShadow flex font formatter renderer rich
  timeZone dateStyle timeStyle granularity code lineStyle`.split(/\s+/),
);
/** Calls whose own strings are not shown. */
const codeCalls = new Set(
  `addEventListener removeEventListener call callOrThrow closest createElement endsWith error execCommand follow get
  getElementById has includes indexOf isOneOf log match matchMedia navigate postMessage querySelector querySelectorAll
  recall remember removeAttribute replace replaceAll RegExp setAttribute set split startsWith supportedValuesOf test
  toLocaleDateString toLocaleLowerCase toLocaleString toLocaleUpperCase useCall useKeys useRemembered warn
  DateTimeFormat NumberFormat Error RangeError TypeError describe literal enum
  parse JSON isKey normalize`.split(/\s+/),
);
/** Calls whose strings are shown. */
const textCalls = new Set(`showFailure showDone setError counted`.split(/\s+/));
const textCallsOfFiles: readonly (readonly [file: RegExp, names: ReadonlySet<string>])[] = [
  [/^shared\/governance\/rules\/words\.ts$/, new Set(["list", "push"])],
  [/^shared\/governance\/configuration\/setting-fields\.ts$/, new Set(["number"])],
];

/** A single word: text only in the places named here. */
const codeWords = new Set(
  `ArrowDown ArrowUp ArrowLeft ArrowRight Backspace Blob Delete End Enter Escape Home Inter PageDown PageUp Space Tab
  Bearer Content Meta Control Alt Shift Dialog Object Array String Number Date Map Set Infinity`.split(/\s+/),
);

export const isTextAttribute = (name: string): boolean => textNames.has(name);
export const isCodeAttribute = (name: string): boolean => codeNames.has(name) || name.startsWith("data-");
/** Names that mean something else in one file. */
const codeNamesOfFiles: readonly (readonly [file: RegExp, names: ReadonlySet<string>])[] = [
  [/^shared\/governance\/(?:configuration|rules)\//, new Set(["name", "text", "many", "words_of"])],
  [/^shared\/governance\/rules\/facts\.ts$/, new Set(["text", "boolean", "number", "operatorsOf"])],
  [/^electron\/main\//, new Set(["name", "what", "alt", "text"])],
];
/** Tables of words name themselves: `statusWords`, `kindNames`. */
export const isTextTable = (name: string): boolean =>
  textNames.has(name) || /(?:Words|Names|Labels)$/.test(name);
export const isTextProperty = (name: string, file: string): boolean =>
  textNames.has(name) ||
  (name === "unit" &&
    /^shared\/governance\/configuration\/(?:setting-|field-)?(?:fields|types)\.ts$/.test(file));
export const isCodeProperty = (name: string, file: string): boolean =>
  codeNames.has(name) ||
  name.startsWith("--") ||
  codeNamesOfFiles.some(([files, names]) => files.test(file) && names.has(name));
export const isTextCall = (name: string, file: string): boolean =>
  textCalls.has(name) || textCallsOfFiles.some(([files, names]) => files.test(file) && names.has(name));
export const isCodeCall = (name: string): boolean => codeCalls.has(name);

/** Code, wherever it is: colours, addresses, commands, keys; in the console's process SQL too. */
// oxlint-disable no-control-regex -- \u0001 marks where a value is put in
export const isCodeText = (text: string, file: string): boolean =>
  /^(?:\p{Ll}|\d+px|inherit|busy)?$|^\s*<|^(?:#[\da-f]{3,8}$|https?:|var\(|calc\(|postgresql:|npm |npx |psql |rk_live|token-governance:|[a-z-]+[:.]\ufffc|[a-z]+_[a-z_]+$)/iu.test(
    text,
  ) ||
  (file.startsWith("electron/main/") &&
    /^\s*(?:[\w-]+:\S|[a-z]+-\ufffc|doubts\.|[\w-]+: \[\]|(?:s\.about|select|insert|delete|update|pragma|create|alter|begin|with moved|vacuum|run_id|newest|error|exit|keytar|reading)\b)/.test(
      text,
    ));

/** Reads as words for people: several of them, or one with a capital letter. */
export function isPhrase(text: string): boolean {
  if (/^\p{Lu}\p{Ll}+[.…?!:]?$/u.test(text)) return !codeWords.has(text);
  return (
    /(?:^|[\s(“"])\p{L}[\p{L}’'-]*(?:[\s.,:;?!…)”"]|$)/u.test(text) &&
    /\s/.test(text.trim() === text && !text.includes("\ufffc") ? text : ` ${text} `)
  );
}
