/** Numbers as a person types them: with the signs of their language, and refused where they could mean two amounts. */
import { currentLocale } from "../../../shared/language/index.ts";

interface NumberSigns {
  readonly group: string;
  readonly decimal: string;
}

/** The signs between thousands and before decimals. */
export function numberSigns(): NumberSigns {
  const parts = new Intl.NumberFormat(currentLocale(), { useGrouping: true }).formatToParts(1_234_567.5);
  const sign = (type: string): string => parts.find((each) => each.type === type)?.value ?? "";
  return { group: sign("group") || " ", decimal: sign("decimal") || "." };
}

/**
 * `1.234,5` typed in German, `1,234.5` typed in English → `1234.5`. Null where the signs are not those of the language:
 * `0.80` is no amount in German, and `0,80` none in English, rather than eighty.
 */
export function plainNumber(typed: string): string | null {
  const { group, decimal } = numberSigns();
  // Spaces, the hard ones too, and apostrophes only ever group. Marks of direction come with what is pasted from a mail.
  const text = typed
    .replace(/\p{Cf}/gu, "")
    .trim()
    .replace("−", "-")
    .replace(/(?<=\d)[\s_'’\u00a0\u202f](?=\d{3}(?:\D|$))/g, "");
  const [whole = "", fraction, ...more] = text.split(decimal);
  if (more.length > 0 || (fraction !== undefined && !/^\d*$/.test(fraction))) return null;
  const digits = whole.replace(/^-/, "");
  const groups = digits.split(group);
  const isGrouped = groups.every((each, index) => (index === 0 ? /^\d{1,3}$/ : /^\d{3}$/).test(each));
  if (!/^\d+$/.test(digits) && !(groups.length > 1 && isGrouped)) return null;
  return `${whole.startsWith("-") ? "-" : ""}${groups.join("")}${fraction ? `.${fraction}` : ""}`;
}

/** A plain decimal as the person writes it in a field: with their decimal sign, without groups. */
export const typedNumber = (plain: string): string => plain.replace(".", numberSigns().decimal);

/** Several numbers in one field. Where the comma marks decimals, a semicolon or a comma with a space parts them. */
export const splitNumbers = (typed: string): readonly string[] =>
  typed
    .split(numberSigns().decimal === "," ? /;|,\s+/ : /[;,]/)
    .map((each) => each.trim())
    .filter(Boolean);
export const joinNumbers = (plain: readonly string[]): string =>
  plain.map(typedNumber).join(numberSigns().decimal === "," ? "; " : ", ");
