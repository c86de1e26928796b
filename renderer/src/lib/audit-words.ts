/** An entry of the audit log as people read it; its export has it as it is kept. */
import { capitalise, cleanText, codeWords, reasonWords } from "./text.ts";

interface Entry {
  readonly operator: string | null;
  readonly reason: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

/** A code of ours as words; any other text as it is. */
function codeInWords(text: string): string {
  return /^[a-z]+(_[a-z]+)+$/.test(text) ? codeWords(text) : cleanText(text);
}

/** A person's own words; of a rule, what its code means. */
export function auditReason({ operator, reason }: Entry): string | null {
  if (reason === null) return null;
  return operator === null ? capitalise(reasonWords(reason)) : codeInWords(reason);
}

/** What else it keeps, on one line, moments as they are kept. */
export function auditDetails({ details }: Entry): string {
  return Object.entries(details)
    .filter(([key, value]) => key !== "act_id" && value !== null && value !== "" && value !== false)
    .map(([key, value]) =>
      // What has parts of its own is in the export; a true value is shown by its name.
      typeof value === "string" || typeof value === "number"
        ? `${codeWords(key).replace(/ id$/, "")} ${codeInWords(String(value))}`
        : codeWords(key),
    )
    .join(", ");
}
