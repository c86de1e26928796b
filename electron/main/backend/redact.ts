/** Takes keys out of a text before it goes to a log, an error or the screen. */

const patterns: readonly [RegExp, string][] = [
  // JWTs, also cut short: a header and some payload are enough to know one.
  [/eyJ[\w-]{8,}(?:\.[\w-]*){0,2}/g, "[key]"],
  [/\bsb_(?:secret|publishable)_[\w-]+/g, "[key]"],
  [/\b(?:sk|rk|pk|whsec)_(?:live_|test_)?\w{8,}/g, "[key]"],
  [/([?&](?:apikey|token|access_token)=)[^&\s"']+/gi, "$1[key]"],
  [/(\bbearer\s+)[^\s"',]+/gi, "$1[key]"],
  // A password inside a URL.
  [/(\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@]*:)[^\s/@]+@/gi, "$1[key]@"],
];

export function redact(text: string, secrets: readonly string[] = []): string {
  let clean = text;
  for (const secret of secrets) if (secret.length >= 8) clean = clean.replaceAll(secret, "[key]");
  for (const [pattern, replacement] of patterns) clean = clean.replace(pattern, replacement);
  return clean;
}
