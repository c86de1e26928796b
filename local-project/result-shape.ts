/**
 * What a caller may ask of the rows a function answers: columns, filters, order, a page. The part of PostgREST's
 * query language that works on one result (https://docs.postgrest.org/en/stable/references/api/tables_views.html);
 * embedding, JSON paths, full-text search and and/or trees are not spoken and are refused.
 */
import { quoteIdentifier, quoteLiteral } from "./database.ts";
import { refusal } from "./errors.ts";

export interface ResultShape {
  /** SQL of the select list, `*` for all. */
  readonly columns: string;
  /** SQL conditions, all of which must hold. */
  readonly conditions: readonly string[];
  /** SQL after `order by`, or empty. */
  readonly order: string;
  readonly limit: number | null;
  readonly offset: number;
  /** True where nothing was asked for. */
  readonly isPlain: boolean;
}

const COMPARISONS: Readonly<Record<string, string>> = {
  eq: "=",
  neq: "<>",
  gt: ">",
  gte: ">=",
  lt: "<",
  lte: "<=",
  like: "like",
  ilike: "ilike",
  match: "~",
  imatch: "~*",
  cs: "@>",
  cd: "<@",
  ov: "&&",
};
const OTHER_OPERATORS = ["not", "is", "in", "sl", "sr", "nxr", "nxl", "adj", "fts", "plfts", "phfts", "wfts"];
const RESERVED = ["select", "columns", "on_conflict", "order", "limit", "offset", "and", "or"];

/** Splits a query string into a function's arguments (for GET) and what shapes its result. */
export function splitQuery(query: URLSearchParams): {
  readonly argumentValues: ReadonlyMap<string, string>;
  readonly filters: readonly (readonly [string, string])[];
} {
  const argumentValues = new Map<string, string>();
  const filters: [string, string][] = [];
  for (const [name, value] of query) {
    if (name.includes("\0") || value.includes("\0")) {
      throw refusal(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00');
    }
    if (RESERVED.includes(name)) continue;
    const operator = /^([a-z]+)(?:\([^)]*\))?\./.exec(value)?.[1] ?? "";
    const isFilter = operator in COMPARISONS || OTHER_OPERATORS.includes(operator);
    if (isFilter) filters.push([name, value]);
    else argumentValues.set(name, value);
  }
  return { argumentValues, filters };
}

export function readShape(
  query: URLSearchParams,
  filters: readonly (readonly [string, string])[],
  range: string | undefined,
): ResultShape {
  for (const name of ["and", "or"]) {
    if (query.has(name))
      throw unparsed(`failed to parse logic tree (${query.get(name)})`, `"${name}" is not spoken here`);
  }
  const select = query.get("select") ?? "*";
  const { limit, offset } = readPage(query, range);
  const order = query.get("order") ?? "";
  return {
    columns: readColumns(select),
    conditions: filters.map(([column, value]) => readFilter(column, value)),
    order: order === "" ? "" : splitOutsideQuotes(order).map(readOrder).join(", "),
    limit,
    offset,
    isPlain: select === "*" && filters.length === 0 && order === "" && limit === null && offset === 0,
  };
}

function readPage(
  query: URLSearchParams,
  range: string | undefined,
): { limit: number | null; offset: number } {
  const whole = (name: string): number | null => {
    const text = query.get(name);
    return text !== null && /^-?\d{1,15}$/.test(text) ? Number(text) : null;
  };
  let limit = whole("limit");
  let offset = whole("offset") ?? 0;
  const header = /^(\d{1,15})-(\d{1,15})?$/.exec(range ?? "");
  if (header) {
    const first = Number(header[1]);
    offset = Math.max(offset, first);
    if (header[2] !== undefined) {
      const last = Number(header[2]);
      if (last < first) {
        throw unsatisfiable(
          "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
        );
      }
      limit = Math.min(limit ?? Number.POSITIVE_INFINITY, last - offset + 1);
    }
  }
  if (limit !== null && limit < 0) throw unsatisfiable("Limit should be greater than or equal to zero.");
  return { limit, offset: Math.max(offset, 0) };
}

export function unsatisfiable(details: string): Error {
  return refusal(416, "PGRST103", "Requested range not satisfiable", details);
}

function unparsed(message: string, details: string): Error {
  return refusal(400, "PGRST100", message, details);
}

/** `a,alias:b,c::text` as a select list. */
function readColumns(select: string): string {
  if (select === "" || select === "*") return "*";
  return splitOutsideQuotes(select)
    .map((item) => {
      if (item === "*") return "*";
      const match = /^(?:("[^"]+"|[^":(]+):(?!:))?("[^"]+"|[^":(>]+)(?:::([a-z0-9_ ]+))?$/i.exec(item);
      if (!match?.[2] || match[2].endsWith("-")) {
        throw unparsed(`failed to parse select parameter (${select})`, `unexpected "${item}"`);
      }
      const [, alias, column, cast] = match;
      const name = unquote(column);
      const value = `${quoteIdentifier(name)}${cast === undefined ? "" : `::${quoteType(cast)}`}`;
      return `${value} as ${quoteIdentifier(alias === undefined ? name : unquote(alias))}`;
    })
    .join(", ");
}

/** A type's name as an identifier, word by word: `double precision` is two. */
function quoteType(cast: string): string {
  const plain = cast.trim().toLowerCase();
  if (!/^[a-z][a-z0-9_]*( [a-z]+)*$/.test(plain))
    throw unparsed(`failed to parse cast (${cast})`, "unexpected cast");
  return plain;
}

function readOrder(item: string): string {
  const match = /^("[^"]+"|[^".]+)(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?$/.exec(item);
  if (!match?.[1]) throw unparsed(`failed to parse order (${item})`, `unexpected "${item}"`);
  const nulls = { nullsfirst: " nulls first", nullslast: " nulls last" }[match[3] ?? ""] ?? "";
  return `${quoteIdentifier(unquote(match[1]))} ${match[2] ?? "asc"}${nulls}`;
}

function readFilter(column: string, expression: string): string {
  const negated = expression.startsWith("not.");
  const [, operator = "", value = ""] =
    /^([a-z]+)\.([\s\S]*)$/.exec(negated ? expression.slice(4) : expression) ?? [];
  const condition = readCondition(quoteIdentifier(column), operator, value, expression);
  return negated ? `not (${condition})` : condition;
}

function readCondition(column: string, operator: string, value: string, expression: string): string {
  if (operator === "is") {
    const allowed = ["null", "not_null", "true", "false", "unknown"];
    if (!allowed.includes(value.toLowerCase())) {
      throw unparsed(
        `failed to parse filter (${expression})`,
        "is takes null, not_null, true, false or unknown",
      );
    }
    return `${column} is ${value.toLowerCase().replace("_", " ")}`;
  }
  if (operator === "in") {
    const list = /^\(([\s\S]*)\)$/.exec(value)?.[1];
    if (list === undefined)
      throw unparsed(`failed to parse filter (${expression})`, "in takes a list in parentheses");
    const values = list === "" ? [] : splitOutsideQuotes(list).map((one) => quoteLiteral(unquote(one)));
    return values.length === 0 ? "false" : `${column} in (${values.join(", ")})`;
  }
  const symbol = COMPARISONS[operator];
  if (symbol === undefined)
    throw unparsed(`failed to parse filter (${expression})`, `"${operator}" is not spoken here`);
  const pattern = operator === "like" || operator === "ilike" ? value.replaceAll("*", "%") : value;
  return `${column} ${symbol} ${quoteLiteral(pattern)}`;
}

/** Splits at commas that are not in double quotes. */
function splitOutsideQuotes(text: string): string[] {
  const items: string[] = [];
  let item = "";
  let quoted = false;
  for (let index = 0; index < text.length; index++) {
    const character = text.charAt(index);
    if (character === "," && !quoted) {
      items.push(item.trim());
      item = "";
      continue;
    }
    if (character === '"') quoted = !quoted;
    item += character;
    if (character === "\\" && quoted) item += text.charAt(++index);
  }
  if (quoted) throw unparsed(`failed to parse (${text})`, "a double quote is not closed");
  return [...items, item.trim()];
}

function unquote(text: string): string {
  return /^"[\s\S]*"$/.test(text) ? text.slice(1, -1).replace(/\\(.)/g, "$1") : text;
}
