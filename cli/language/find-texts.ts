/**
 * Finds the texts for people in a source file, and rewrites the file so that each is looked up in the catalogue of the
 * person's language. The sources stay plain English: `docs/decisions/0011-language-at-build-time.md` says why.
 */
import MagicString from "magic-string";
import { parseAst } from "vite";
import {
  isCodeAttribute,
  isCodeCall,
  isCodeProperty,
  isCodeText,
  isPhrase,
  isTextAttribute,
  isTextCall,
  isTextProperty,
  isTextTable,
} from "./what-is-text.ts";

/** A text as a source file has it; `{name}` stands for what the code puts there. */
interface FoundText {
  readonly text: string;
  readonly line: number;
}

interface FoundTexts {
  readonly texts: readonly FoundText[];
  /** The file, rewritten; null where it has no text. */
  readonly code: MagicString | null;
}

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

/** How the place of a node is read: `text` is shown to people, `maybe` is where it reads as a phrase, `code` never. */
type Place = "text" | "maybe" | "code";

/** What the rewritten file calls, of `renderer/src/lib/language.ts`. */
const names = { say: "$say", parts: "$parts", count: "$count", locale: "$locale" } as const;
/** Calls that format for people; the sources say "en", the page says the person's own. */
const formatters = new Set(
  "toLocaleString toLocaleDateString toLocaleTimeString NumberFormat DateTimeFormat".split(" "),
);
const typeNodes = /^TS(?!As|Satisfies|NonNull|Instantiation)/;
const hasLetter = /\p{L}/u;

/** `placeOf` names the place that a text's own translation is for, where it has one. */
export function findTexts(
  source: string,
  file: string,
  placeOf: (text: string) => string | null = () => null,
): FoundTexts {
  const program = parseAst(
    source,
    { lang: file.endsWith("x") ? "tsx" : "ts", astType: "ts" },
    file,
  ) as unknown as Node;
  const finder = new Finder(source, file, placeOf);
  finder.visit(program, "maybe");
  if (!finder.code.hasChanged()) return { texts: [], code: null };
  return { texts: finder.texts, code: finder.code };
}

/** Puts in front what the rewritten file calls. */
export function importLanguage(code: MagicString, used: string, runtime: string): void {
  const needed = Object.entries(names).filter(([, local]) => used.includes(`${local}(`));
  const list = needed.map(([name, local]) => `${name} as ${local}`).join(", ");
  code.prepend(`import { ${list} } from ${JSON.stringify(runtime)};`);
}

class Finder {
  readonly texts: FoundText[] = [];
  readonly code: MagicString;
  readonly #source: string;

  readonly #placeOf: (text: string) => string | null;

  readonly #file: string;

  constructor(source: string, file: string, placeOf: (text: string) => string | null) {
    this.#source = source;
    this.#file = file;
    this.#placeOf = placeOf;
    this.code = new MagicString(source);
  }

  visit(node: unknown, place: Place): void {
    if (Array.isArray(node)) {
      for (const each of node) this.visit(each, place);
      return;
    }
    if (!isNode(node) || typeNodes.test(node.type)) return;
    switch (node.type) {
      case "ImportDeclaration":
      case "ExportAllDeclaration":
      case "ImportExpression":
      case "ThrowStatement":
      case "TaggedTemplateExpression":
        return;
      case "ExportNamedDeclaration":
        return this.visit(node["declaration"], place);
      case "Literal":
        return this.#literal(node, place);
      case "TemplateLiteral":
        return this.#template(node, place);
      case "JSXElement":
        this.visit(node["openingElement"], "maybe");
        if (nameOf((node["openingElement"] as Node)["name"]) === "code")
          return this.visit(node["children"], "code");
        return this.#children(node);
      case "JSXFragment":
        return this.#children(node);
      case "JSXAttribute":
        return this.#attribute(node);
      case "JSXExpressionContainer":
        return this.visit(node["expression"], place);
      case "Property":
        return this.#property(node, "maybe");
      case "PropertyDefinition":
        return this.visit(node["value"], "maybe");
      case "CallExpression":
      case "NewExpression":
        return this.#call(node);
      case "BinaryExpression":
        return node["operator"] === "+"
          ? this.visit([node["left"], node["right"]], place)
          : this.visit([node["left"], node["right"]], "code");
      case "SwitchCase":
        return this.visit(node["consequent"], "maybe");
      case "MemberExpression":
        // `[…].join(", ")`: what is joined is shown.
        this.visit(
          node["object"],
          isNode(node["object"]) && node["object"].type.endsWith("Literal") ? "code" : "maybe",
        );
        return node["computed"] ? this.visit(node["property"], "code") : undefined;
      case "ConditionalExpression":
        this.visit(node["test"], "code");
        return this.#choice([node["consequent"], node["alternate"]], place);
      case "LogicalExpression":
        if (node["operator"] !== "&&") return this.#choice([node["left"], node["right"]], place);
        this.visit(node["left"], "code");
        return this.visit(node["right"], place);
      case "ArrowFunctionExpression":
        this.visit(node["params"], "maybe");
        return this.visit(
          node["body"],
          isNode(node["body"]) && node["body"].type !== "BlockStatement" ? place : "maybe",
        );
      case "ArrayExpression":
        // A row of a table: a code, a colour, a word.
        return this.#below(node, place === "code" ? "code" : "maybe");
      case "ParenthesizedExpression":
      case "TSAsExpression":
      case "TSSatisfiesExpression":
      case "TSNonNullExpression":
      case "SequenceExpression":
        return this.#below(node, place);
      case "VariableDeclarator":
        return this.#variable(node);
      default:
        return this.#below(node, place === "code" ? "code" : "maybe");
    }
  }

  /** One of two is shown. Where one is for people, a lone word instead of it is too. */
  #choice(either: readonly unknown[], place: Place): void {
    this.visit(either, place === "maybe" && either.some(isShown) ? "text" : place);
  }

  /** `statusWords`: every string of the table is a word. */
  #variable(node: Node): void {
    const isTable = isTextTable(nameOf(node["id"]));
    let init = node["init"];
    while (isNode(init) && /^TS(?:As|Satisfies)Expression$/.test(init.type)) init = init["expression"];
    if (!isTable || !isNode(init) || init.type !== "ObjectExpression")
      return this.visit(init, isTable ? "text" : "maybe");
    for (const property of init["properties"] as readonly Node[])
      if (property.type === "Property") this.#property(property, "text");
      else this.visit(property, "maybe");
  }

  #below(node: Node, place: Place): void {
    for (const [key, value] of Object.entries(node))
      if (key !== "typeAnnotation" && key !== "returnType" && typeof value === "object")
        this.visit(value, place);
  }

  /** Keeps a text, and answers it as the rewritten file has it. */
  #keep(text: string, at: number): string {
    let line = 1;
    for (
      let index = this.#source.indexOf("\n");
      index >= 0 && index < at;
      index = this.#source.indexOf("\n", index + 1)
    )
      line += 1;
    const place = this.#placeOf(text.trim());
    this.texts.push({ text: text.trim(), line });
    return JSON.stringify(place ? `${text.trim()} @@ ${place}` : text);
  }

  #literal(node: Node, place: Place): void {
    const text = node["value"];
    if (typeof text !== "string" || place === "code") return;
    if (isCodeText(text, this.#file) || (place === "text" ? !hasLetter.test(text) : !isPhrase(text))) return;
    const kept = this.#keep(escapeBraces(text), node.start);
    this.code.overwrite(node.start, node.end, `${names.say}(${kept})`);
  }

  #template(node: Node, place: Place): void {
    const quasis = node["quasis"] as readonly { readonly value: { readonly cooked: string } }[];
    const expressions = node["expressions"] as readonly Node[];
    const pieces = quasis.map(({ value }) => value.cooked);
    const joined = pieces.join("\ufffc");
    const isText =
      !isCodeText(joined, this.#file) &&
      (place === "text" ? hasLetter.test(joined) : place === "maybe" && isPhrase(joined));
    this.visit(expressions, isText ? "text" : place);
    if (!isText) return;
    const labels = labelsOf(expressions);
    const text = pieces
      .map((piece, index) => escapeBraces(piece) + (labels[index] ? `{${labels[index]}}` : ""))
      .join("");
    const call = `${names.say}(${this.#keep(text, node.start)}`;
    if (expressions.length === 0) {
      this.code.overwrite(node.start, node.end, `${call})`);
      return;
    }
    let from = node.start;
    for (const [index, expression] of expressions.entries()) {
      const before = index === 0 ? `${call}, { ` : "), ";
      this.code.overwrite(from, expression.start, `${before}${labels[index]}: (`);
      from = expression.end;
    }
    this.code.overwrite(from, node.end, ") })");
  }

  #attribute(node: Node): void {
    const name = ((node["name"] as Node)["name"] as string | undefined) ?? "";
    const value = node["value"];
    if (!isNode(value) || isCodeAttribute(name)) return;
    const place = isTextAttribute(name) ? "text" : "maybe";
    if (value.type !== "Literal") return this.visit(value, place);
    const text = decodeEntities(String(value["value"]));
    if (isCodeText(text, this.#file) || (place === "text" ? !hasLetter.test(text) : !isPhrase(text))) return;
    const kept = this.#keep(escapeBraces(text), value.start);
    this.code.overwrite(value.start, value.end, `{${names.say}(${kept})}`);
  }

  #property(node: Node, place: Place): void {
    if (node["computed"]) this.visit(node["key"], "code");
    const name = nameOf(node["key"]);
    const value = node["value"];
    const isText =
      place === "text" &&
      isNode(value) &&
      /^(?:Literal|TemplateLiteral|ArrowFunctionExpression)$/.test(value.type);
    if (!isText && isCodeProperty(name, this.#file)) return;
    this.visit(node["value"], isText || isTextProperty(name, this.#file) ? "text" : "maybe");
  }

  #call(node: Node): void {
    const name = nameOf(node["callee"]);
    this.visit(node["callee"], "maybe");
    const given = node["arguments"] as readonly Node[];
    const [first] = given;
    if (formatters.has(name) && first?.type === "Literal" && /^en(?:-GB)?$/.test(String(first["value"])))
      this.code.overwrite(first.start, first.end, `${names.locale}()`);
    if (name === "counted" && node.type === "CallExpression" && this.#counted(node, given)) return;
    if (isCodeCall(name)) {
      // Functions and objects given to it have texts of their own.
      for (const each of given)
        if (each.type !== "Literal" && each.type !== "TemplateLiteral") this.visit(each, "maybe");
      return;
    }
    this.visit(given, isTextCall(name, this.#file) ? "text" : "maybe");
  }

  /** `counted(n, "user")`: both forms are one text, `{n} user | {n} users`. */
  #counted(node: Node, given: readonly Node[]): boolean {
    const [count, one, many] = given;
    if (!count || one?.type !== "Literal" || (many && many.type !== "Literal")) return false;
    const singular = String(one["value"]);
    const text = `{n} ${singular} | {n} ${many ? String(many["value"]) : `${singular}s`}`;
    this.visit(count, "maybe");
    const kept = this.#keep(text, node.start);
    this.code.overwrite(node.start, count.start, `${names.count}(${kept}, `);
    this.code.overwrite(count.end, node.end, ")");
    return true;
  }

  /** The children of an element: one text where there are words among them, with its elements and values inside. */
  #children(node: Node): void {
    const children = (node["children"] as readonly Node[]).filter(
      (child) => !(child.type === "JSXText" && jsxText(child) === "") && !isComment(child),
    );
    const isText = children.some((child) => hasLetter.test(textOf(child) ?? ""));
    const filled = children.filter((child) => textOf(child) === null);
    for (const child of filled) this.visit(child, "text");
    if (!isText) return;
    const labels = labelsOf(
      filled.map((child) =>
        child.type === "JSXExpressionContainer" ? (child["expression"] as Node) : child,
      ),
    );
    const text = children
      .map((child) => {
        const words = textOf(child);
        return words === null ? `{${labels[filled.indexOf(child)]}}` : escapeBraces(words);
      })
      .join("");
    const first = children[0];
    const last = children.at(-1);
    if (!first || !last) return;
    const kept = this.#keep(text, first.start);
    const [opening, closing] = [startOf(first, this.#source), endOf(last, this.#source)];
    if (filled.length === 0) {
      this.code.overwrite(opening, closing, `{${names.say}(${kept})}`);
      return;
    }
    let from = opening;
    let before = `{${names.parts}(${kept}, { `;
    for (const [index, child] of filled.entries()) {
      const isContainer = child.type === "JSXExpressionContainer";
      const start = isContainer ? child.start + 1 : child.start;
      const glue = `${before}${labels[index]}: (`;
      if (from === start) this.code.appendLeft(start, glue);
      else this.code.overwrite(from, start, glue);
      from = isContainer ? child.end - 1 : child.end;
      before = "), ";
    }
    if (from === closing) this.code.appendRight(from, ") })}");
    else this.code.overwrite(from, closing, ") })}");
  }
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && typeof (value as Node).type === "string";

const madeForPeople = /^(?:format\w*|counted|clip|cleanText|capitalise|codeWords|toLocale\w*String)$/;
/** An element, a phrase, or a value as a person reads it. */
const isShown = (node: unknown): boolean =>
  isNode(node) &&
  (node.type === "JSXElement" ||
    node.type === "JSXFragment" ||
    (node.type === "Literal" && typeof node["value"] === "string" && isPhrase(node["value"])) ||
    (node.type === "CallExpression" && madeForPeople.test(nameOf(node["callee"]))));

const isComment = (child: Node): boolean =>
  child.type === "JSXExpressionContainer" && (child["expression"] as Node).type === "JSXEmptyExpression";

/** The words of a child that is nothing but words, else null. */
function textOf(child: Node): string | null {
  if (child.type === "JSXText") return jsxText(child);
  if (child.type !== "JSXExpressionContainer") return null;
  const expression = child["expression"] as Node;
  return expression.type === "Literal" && typeof expression["value"] === "string"
    ? expression["value"]
    : null;
}

/** JSX text as React shows it: lines are trimmed and joined by one space. */
function jsxText(child: Node): string {
  const lines = String(child["value"]).split(/\r?\n/);
  if (lines.length === 1) return decodeEntities(lines[0] ?? "");
  const kept = lines
    .map((line, index) => {
      const start = index === 0 ? line : line.replace(/^[ \t]+/, "");
      return index === lines.length - 1 ? start : start.replace(/[ \t]+$/, "");
    })
    .filter((line) => line !== "");
  return decodeEntities(kept.join(" "));
}

/** Where the words of a text begin and end in the source, without the line breaks around them. */
const startOf = (child: Node, source: string): number =>
  child.type === "JSXText"
    ? child.start + (/^\s*\n\s*/.exec(source.slice(child.start, child.end))?.[0].length ?? 0)
    : child.start;
const endOf = (child: Node, source: string): number =>
  child.type === "JSXText"
    ? child.end - (/\n\s*$/.exec(source.slice(child.start, child.end))?.[0].length ?? 0)
    : child.end;

const entities: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
};
const decodeEntities = (text: string): string =>
  text.replace(/&([a-z]+);/g, (whole, name: string) => entities[name] ?? whole);

/** A brace of the text itself is doubled. */
const escapeBraces = (text: string): string => text.replaceAll("{", "{{").replaceAll("}", "}}");

function nameOf(node: unknown): string {
  if (!isNode(node)) return "";
  if (node.type === "Identifier" || node.type === "JSXIdentifier") return String(node["name"]);
  if (node.type === "Literal") return String(node["value"]);
  if (node.type === "MemberExpression") return node["computed"] ? "" : nameOf(node["property"]);
  return "";
}

/** A short name for a value inside a text: translators read it. */
function labelOf(node: unknown): string {
  if (!isNode(node)) return "";
  switch (node.type) {
    case "CallExpression": {
      const given = (node["arguments"] as readonly Node[])[0];
      const callee = node["callee"] as Node;
      return (
        labelOf(given) ||
        (callee.type === "MemberExpression" ? labelOf(callee["object"]) : "") ||
        nameOf(callee)
      );
    }
    case "ConditionalExpression":
      return labelOf(node["consequent"]) || labelOf(node["alternate"]);
    case "LogicalExpression":
      return labelOf(node["left"]) || labelOf(node["right"]);
    case "BinaryExpression":
      return labelOf(node["left"]) || labelOf(node["right"]);
    case "TSAsExpression":
    case "TSNonNullExpression":
    case "ChainExpression":
      return labelOf(node["expression"]);
    case "TemplateLiteral":
      return labelOf((node["expressions"] as readonly Node[])[0]);
    case "MemberExpression":
      return nameOf(node) || labelOf(node["object"]);
    case "JSXExpressionContainer":
      return labelOf(node["expression"]);
    case "JSXElement":
      return labelOfElement(node);
    case "Identifier":
      return nameOf(node);
    default:
      return "";
  }
}

function labelOfElement(node: Node): string {
  const opening = node["openingElement"] as Node;
  for (const attribute of opening["attributes"] as readonly Node[]) {
    const name = nameOf(attribute["name"]);
    if (["value", "at", "text", "micros", "of", "id"].includes(name)) {
      const label = labelOf(attribute["value"]);
      if (label) return label;
    }
  }
  for (const child of node["children"] as readonly Node[]) {
    const label = labelOf(child);
    if (label) return label;
  }
  return nameOf(opening["name"]).toLowerCase();
}

/** The names of the values inside one text, each once. */
function labelsOf(nodes: readonly Node[]): string[] {
  const taken = new Set<string>();
  return nodes.map((node) => {
    const base = labelOf(node).replace(/[^\p{L}\p{N}_]/gu, "") || "value";
    let label = base;
    for (let number = 2; taken.has(label); number++) label = `${base}${number}`;
    taken.add(label);
    return label;
  });
}
