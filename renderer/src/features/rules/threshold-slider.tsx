import { Button } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";
import type { ThresholdCurveRecord } from "../../../../shared/contract/rules.ts";
import { formatCost, formatTokens } from "../../lib/format.ts";
import { codeWords, counted } from "../../lib/text.ts";
import { operatorWords } from "./definition.ts";
import css from "./editor.module.css";

const width = 600;
const height = 64;

/**
 * Where the slider stops: values that change a two-hundredth of what there is to change, and those of the rule and of
 * both ends. A few accounts with very many calls would otherwise take all of its length.
 */
export function stopsOf(points: ThresholdCurveRecord["points"], own: number): ThresholdCurveRecord["points"] {
  const least = Math.max(...points.map((point) => point.newly)) / 200;
  let last = Number.NEGATIVE_INFINITY;
  return points.filter((point, at) => {
    const isStop = Math.abs(point.newly - last) >= least || point.value === own || at === points.length - 1;
    if (isStop) last = point.newly;
    return isStop;
  });
}

/** The rule's number as a slider over past calls: people and money move with it, and the project is not read again. */
export function ThresholdSlider({
  curve,
  currency,
  onUse,
}: {
  readonly curve: ThresholdCurveRecord;
  readonly currency: string | null;
  /** Null where the rule is only looked at. */
  readonly onUse: ((value: number) => void) | null;
}): ReactNode {
  const points = useMemo(() => stopsOf(curve.points, curve.value), [curve]);
  const start = Math.max(
    0,
    points.findIndex((point) => point.value === curve.value),
  );
  const [at, setAt] = useState(start);
  const shape = useMemo(() => {
    const most = Math.max(1, ...points.map((point) => point.newly));
    const last = Math.max(1, points.length - 1);
    return points
      .map((point, index) => `${(index / last) * width},${height - (point.newly / most) * (height - 4)}`)
      .join(" ");
  }, [points]);
  const point = points[at];
  if (!point) return null;
  const x = (at / Math.max(1, points.length - 1)) * width;
  return (
    <div className={css.threshold}>
      <svg
        viewBox={`0 0 ${width} ${height}`}
        preserveAspectRatio="none"
        className={css.curve}
        aria-hidden="true"
      >
        <polyline points={shape} fill="none" stroke="var(--c-blue-mark)" vectorEffect="non-scaling-stroke" />
        <line x1={x} x2={x} y1={0} y2={height} stroke="var(--c-red-mark)" vectorEffect="non-scaling-stroke" />
      </svg>
      <input
        type="range"
        aria-label={`${codeWords(curve.fact)}, number`}
        aria-valuetext={String(point.value)}
        min={0}
        max={points.length - 1}
        step={1}
        value={at}
        onChange={(event) => setAt(Number(event.currentTarget.value))}
      />
      <div role="status" aria-label="At this number">
        <b>
          {codeWords(curve.fact).replace(/ micros$/, "")}{" "}
          {operatorWords[curve.op as keyof typeof operatorWords]} {formatValue(curve.fact, point.value)}
        </b>
        : {counted(point.newly, "more call")} of {counted(point.users, "user")}
        {", "}
        {counted(point.paying_users, "of them pays", "of them pay")}; {formatTokens(point.tokens)} tokens
        {currency ? `, ${formatCost(point.cost_micros, currency)}` : ""}.
      </div>
      {onUse && point.value !== curve.value ? (
        <div className={css.groupHead}>
          <Button size="compact-xs" variant="filled" onClick={() => onUse(point.value)}>
            Use {formatValue(curve.fact, point.value)}
          </Button>
          <Button size="compact-xs" variant="subtle" onClick={() => setAt(start)}>
            Back to {formatValue(curve.fact, curve.value)}
          </Button>
        </div>
      ) : null}
      <span className={css.quiet}>
        Each call on its own. What a stopped call changes for the next ones is in the figures below.
      </span>
    </div>
  );
}

const formatValue = (fact: string, value: number): string =>
  fact.endsWith("_micros")
    ? String(value / 1_000_000)
    : Number.isInteger(value)
      ? formatTokens(value)
      : String(value);
