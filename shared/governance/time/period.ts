/** The keys of the periods that alerts are raised by: `governance.budget_period` makes them. */

const forms = [
  ["day", /^[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])$/],
  ["week", /^[1-9][0-9]{3}-W(?:0[1-9]|[1-4][0-9]|5[0-3])$/],
  ["month", /^[1-9][0-9]{3}-(?:0[1-9]|1[0-2])$/],
  ["year", /^[1-9][0-9]{3}$/],
] as const;

/** The period that a key names (`2027-03-05`, `2027-W01`, `2027-03`, `2027`), and its first day; null for what is no such key. */
export function periodOfKey(
  key: string,
): { readonly unit: (typeof forms)[number][0]; readonly from: string } | null {
  const unit = forms.find(([, form]) => form.test(key))?.[0];
  if (unit === undefined) return null;
  if (unit === "week") return { unit, from: firstDayOfWeek(Number(key.slice(0, 4)), Number(key.slice(6))) };
  return { unit, from: `${key}-01-01`.slice(0, 10) };
}

/** The Monday of a week of ISO 8601: the first of a year holds its 4th of January. */
function firstDayOfWeek(year: number, week: number): string {
  const day = new Date(Date.UTC(year, 0, 4));
  day.setUTCDate(day.getUTCDate() - ((day.getUTCDay() + 6) % 7) + 7 * (week - 1));
  return day.toISOString().slice(0, 10);
}
