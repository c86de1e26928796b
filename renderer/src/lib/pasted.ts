/** The longest text that a search takes (console_search). */
const longest = 500;

/** A text that is only a link of this console, from a browser or from the program: its last part is searched for. */
const ownLink = /^\s*(?:https?:\/\/[^\s#]+#\/|token-governance:\/\/)([^\s?]+)\S*\s*$/;
const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a broken escape is searched for as it was typed
  }
};

/** A link has the special characters of an id escaped (`auth0%7C5f7c`), and no id is found in that form. */
function readLinks(text: string): string {
  const parts = ownLink.exec(text)?.[1]?.split("/") ?? [];
  const named = parts[0] === "users" || parts[0] === "rules" ? parts[1] : parts.at(-1);
  if (parts.length > 1 && named) return decoded(named);
  return text.replace(/\S+:\/\/\S*%[0-9a-f]{2}\S*/gi, decoded);
}

const sure = /^(?:pi|ch|py|cs|in|sub|cus|re|pyr|dp|du|evt)_\w{4,}$|^[^@]+@[^@]+\.\w+$/;

/**
 * A text as it is searched for. A whole e-mail is longer than a search takes: only its words that may be an id or an
 * address are kept, and the box shows them. The database decides which of them it knows.
 */
export function searchable(pasted: string): string {
  const text = pasted.length > 200_000 ? pasted : readLinks(pasted);
  if (text.length <= longest) return text;
  const words = new Set(
    text
      .slice(0, 200_000)
      .split(/[\s,;()<>[\]{}"'“”„«»|]+/)
      .map((word) => word.replace(/^[.:!?*#]+|[.:!?*#]+$/g, ""))
      .filter((word) => word.length >= 6 && word.length <= 255 && /[\d@]/.test(word)),
  );
  let kept = "";
  for (const word of [...words].sort((a, b) => Number(sure.test(b)) - Number(sure.test(a))))
    if (kept.length + word.length < longest) kept += kept === "" ? word : ` ${word}`;
  return kept === "" ? text.slice(0, longest) : kept;
}
