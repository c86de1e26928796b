/** Amounts as people read them, where what is shown need not be read back: `formatMoney` is for that. */

const whole = new Intl.NumberFormat("en");

/** 1234567 → "1,234,567". */
export function showCount(count: number): string {
  return whole.format(count).replace("-", "−");
}

/** A whole percentage: 1234 → "1,234 %". */
export function showPercent(percent: number): string {
  return `${whole.format(percent)} %`;
}

/** Micro-units as a decimal text, exact: 12345678 → "12.345678". */
function microsToDecimal(micros: number): string {
  const digits = String(Math.abs(micros)).padStart(7, "0");
  return `${micros < 0 ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}

const moneyFormats = new Map<string, Intl.NumberFormat>();
function moneyFormat(currency: string, digits: number | undefined): Intl.NumberFormat {
  const key = `${currency}/${digits}`;
  let format = moneyFormats.get(key);
  if (!format) {
    const fraction =
      digits === undefined ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits };
    format = new Intl.NumberFormat("en-GB", { style: "currency", currency, ...fraction });
    moneyFormats.set(key, format);
  }
  return format;
}

/** A decimal text as money: "12.5" usd → "US$12.50". */
export function showDecimalMoney(decimal: string, currency: string, digits?: number): string {
  const code = currency.trim().toUpperCase();
  // A code we cannot know is written out, not dropped.
  if (!/^[A-Z]{3}$/.test(code)) return `${decimal} ${code}`.trim();
  const text = moneyFormat(code, digits).format(decimal as Intl.StringNumericLiteral);
  return text.replace("-", "−").replaceAll("\u00a0", " ");
}

/** A cost in micro-units: with 2 digits a sum to the cent, with 4 one call, with 6 all there is; "< £0.01" for what is less still. */
export function showCost(micros: number, currency: string, digits: 2 | 4 | 6 = 2): string {
  const smallest = 10 ** (6 - digits);
  const size = Math.abs(micros);
  if (size > 0 && size < smallest / 2)
    return `< ${showDecimalMoney(microsToDecimal(smallest), currency, digits)}`;
  return showDecimalMoney(microsToDecimal(micros), currency, digits);
}
