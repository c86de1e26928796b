/** What a search takes (console_search). */
const longest = 500;

const sure = /^(?:pi|ch|py|cs|in|sub|cus|re|pyr|dp|du|evt)_\w{4,}$|^[^@]+@[^@]+\.\w+$/;

/**
 * A text as it is searched for. A whole e-mail is longer than a search takes: of it, what may be an id or an address
 * is left, so that the box shows what is looked for. The database decides what of that it is.
 */
export function searchable(text: string): string {
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
