import type { ReactNode } from "react";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatMinorMoney } from "../../lib/format.ts";
import type { Range } from "./ranges.ts";

/** What was earned in the range, and what is left of it after the cost. */
export function Revenue({
  range: { from, to },
  costMicros,
  currency,
}: {
  readonly range: Range;
  readonly costMicros: number;
  readonly currency: string;
}): ReactNode {
  const query = useCall("finance.revenue", { from, to, step: "month" }, { staleMs: 60_000 });
  const sums = new Map<string, number>();
  for (const { currency: code, recognised_minor: minor } of query.data?.lines ?? [])
    sums.set(code, (sums.get(code) ?? 0) + minor);
  const all = [...sums].map(([code, minor]) => ({ currency: code, recognised_minor: minor }));
  const lines = all.filter(({ recognised_minor: minor }) => minor !== 0);
  const own = all.find((line) => line.currency.toLowerCase() === currency.toLowerCase());
  const earnedMicros = (own?.recognised_minor ?? 0) * 10 ** (6 - currencyExponent(currency));
  const isComparable = lines.every((line) => line === own);
  const title =
    "Revenue recognised: paid for tokens that were used or expired in these days of UTC. Margin: that less the cost.";
  const wait = query.error ? "not known" : "…";
  return (
    <>
      <div title={title}>
        <span>Revenue recognised</span>
        <strong>
          {query.data === undefined
            ? wait
            : lines.length === 0
              ? formatCost(0, currency)
              : lines
                  .map((line) =>
                    formatMinorMoney(line.recognised_minor, line.currency, currencyExponent(line.currency)),
                  )
                  .join(" + ")}
        </strong>
        <small>days of UTC</small>
      </div>
      <div title={title}>
        <span>Margin</span>
        <strong>
          {query.data === undefined
            ? wait
            : isComparable
              ? formatCost(earnedMicros - costMicros, currency)
              : "—"}
        </strong>
        <small>
          {query.data && !isComparable
            ? "revenue is in another currency"
            : earnedMicros > 0
              ? `${Math.round((100 * (earnedMicros - costMicros)) / earnedMicros)} % of revenue`
              : " "}
        </small>
      </div>
    </>
  );
}
