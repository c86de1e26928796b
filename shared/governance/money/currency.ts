/**
 * Currencies whose smallest unit is the major unit itself, as Stripe writes their amounts. Not ISK and UGX: they have no
 * smaller unit either, but Stripe writes them with two decimals that are always 00 (Stripe, "Supported currencies").
 */
export const ZERO_DECIMAL_CURRENCIES: ReadonlySet<string> = new Set(
  "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split(" "),
);

/** Currencies with a thousand minor units to the major unit. */
export const THREE_DECIMAL_CURRENCIES: ReadonlySet<string> = new Set("bhd jod kwd omr tnd".split(" "));

/** An ISO 4217 code in lower case, as Stripe's API writes it; null where the text is not one. */
export function normalizeCurrency(code: string): string | null {
  const lower = code.trim().toLowerCase();
  return /^[a-z]{3}$/.test(lower) ? lower : null;
}

/** Decimal places of a currency (0, 2 or 3) by its code in either case. */
export function currencyExponent(code: string): 0 | 2 | 3 {
  const lower = code.toLowerCase();
  if (ZERO_DECIMAL_CURRENCIES.has(lower)) return 0;
  return THREE_DECIMAL_CURRENCIES.has(lower) ? 3 : 2;
}
