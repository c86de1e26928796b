import { Button, Checkbox, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { ConfigItemRecord, ConfigStepRecord } from "../../../../shared/contract/plans.ts";
import type { PriceRecord, PriceReview } from "../../../../shared/contract/prices.ts";
import {
  checkConfig,
  compareConfig,
  configKey,
  type ConfigRecord,
  wholeRecord,
} from "../../../../shared/governance/configuration/index.ts";
import { useCall } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { useProjectCurrency } from "../../lib/live.ts";
import { navigate } from "../../lib/router.ts";
import { cleanText, clip, counted, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { Note, Tag, Time } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { plainNumber } from "../../lib/typed.ts";
import { ApplySteps } from "./history.tsx";
import { asWanted } from "./kinds.ts";
import css from "./plans.module.css";
import { SimulationPanel } from "./simulation-panel.tsx";

const parts = [
  ["input_micros_per_million", "in"],
  ["cached_input_micros_per_million", "cached"],
  ["cache_write_micros_per_million", "cache write"],
  ["cache_write_1h_micros_per_million", "write 1 h"],
  ["output_micros_per_million", "out"],
  ["reasoning_micros_per_million", "reasoning"],
  ["batch_input_micros_per_million", "batch in"],
  ["batch_output_micros_per_million", "batch out"],
  ["priority_input_micros_per_million", "priority in"],
  ["priority_output_micros_per_million", "priority out"],
  ["long_context_above_tokens", "long above"],
  ["long_context_input_micros_per_million", "long in"],
  ["long_context_output_micros_per_million", "long out"],
] as const;
const written = (part: (typeof parts)[number][0], amount: number): string =>
  part === "long_context_above_tokens"
    ? formatTokens(amount)
    : (amount / 1_000_000).toLocaleString("en", { maximumFractionDigits: 6 });
const key = (review: PriceReview): string => `${review.provider ?? ""} ${review.model}`;
const canTake = (review: PriceReview): boolean =>
  review.proposed !== null && (review.kind === "different" || review.kind === "missing");

/** What would change of a price: a line for each amount that differs. */
function PriceDifference({ review }: { readonly review: PriceReview }): ReactNode {
  const { current, proposed } = review;
  if (!proposed) return <span className={css.quiet}>Not in the list: set it under Prices.</span>;
  const shown = parts.filter(([part]) =>
    review.kind === "same" ? proposed[part] !== null : (current?.[part] ?? null) !== proposed[part],
  );
  return (
    <span className={css.amounts}>
      {shown.map(([part, name]) => (
        <span key={part}>
          <span className={css.quiet}>{codeWords(name)}</span>{" "}
          {review.kind !== "same" && current && current[part] !== null ? (
            <span className={css.removed}>{written(part, current[part])}</span>
          ) : null}{" "}
          {proposed[part] === null ? null : (
            <span className={review.kind === "same" ? undefined : css.added}>
              {written(part, proposed[part])}
            </span>
          )}
        </span>
      ))}
    </span>
  );
}

const kinds: Readonly<Record<PriceReview["kind"], { readonly word: string; readonly tone: Tone }>> = {
  unknown: { word: "no price", tone: "red" },
  missing: { word: "not set", tone: "amber" },
  different: { word: "differs", tone: "amber" },
  same: { word: "as listed", tone: "green" },
};

function reviewColumns(
  chosen: ReadonlySet<string>,
  choose: (review: PriceReview, isChosen: boolean) => void,
): readonly Column<PriceReview>[] {
  return [
    {
      id: "choose",
      header: "",
      width: 24,
      cell: (review) => (
        <Checkbox
          aria-label={`Take over ${review.model}`}
          disabled={!canTake(review)}
          checked={chosen.has(key(review))}
          onChange={(event) => choose(review, event.currentTarget.checked)}
        />
      ),
    },
    {
      id: "model",
      header: "Model",
      width: 200,
      cell: (review) => (
        <>
          <code>{clip(cleanText(review.model), 60)}</code>
          <div className={css.quiet}>{review.provider ?? "unknown provider"}</div>
        </>
      ),
    },
    {
      id: "kind",
      header: "",
      width: 80,
      cell: (review) => {
        const { word, tone } = review.unpriced
          ? { word: "used, no price", tone: "red" as const }
          : kinds[review.kind];
        return (
          <>
            <Tag tone={tone}>{word}</Tag>
            {review.unpriced ? (
              <div className={css.quiet}>
                since <Time at={review.unpriced.first_seen_at} form="short" />
                {review.unpriced.calls > 0 ? <>, {counted(review.unpriced.calls, "call")}</> : null}
              </div>
            ) : null}
          </>
        );
      },
    },
    {
      id: "difference",
      header: "Per million tokens",
      width: 300,
      grow: 1,
      cell: (review) => <PriceDifference review={review} />,
    },
    {
      id: "source",
      header: "Source",
      width: 110,
      cell: (review) =>
        review.source ? (
          <>
            <a href={review.source} target="_blank" rel="noreferrer">
              {review.provider}
            </a>
            <div className={css.quiet}>of {review.as_of}</div>
          </>
        ) : null,
    },
  ];
}

/** A price of the list as a change of the project's configuration, in force from its own day or another. */
function asStep(
  { current: inForce, proposed }: PriceReview,
  records: readonly ConfigItemRecord[],
  currency: string,
  from: string,
): ConfigStepRecord[] {
  if (!proposed) return [];
  const kind = "price";
  const settled = (price: PriceRecord): ConfigRecord =>
    wholeRecord(kind, "", { ...price, ...(from === "" ? {} : { effective_from: from }) }, currency);
  const record = settled(proposed);
  const key = configKey(kind, record);
  const there = records.find((each) => each.kind === kind && each.key === key && !each.is_retired);
  const before = there?.record ?? (inForce ? wholeRecord(kind, "", inForce, currency) : null);
  return [
    {
      kind,
      key,
      step: there ? "changed" : "new",
      record,
      expected_version: there?.version ?? 0,
      difference: before ? compareConfig(kind, key, before, record, currency) : [],
      problems: checkConfig(kind, key, record, { currency, plans: [] }),
    },
  ];
}

/** The project's prices beside the catalogue of public list prices; a person takes over what is chosen. */
export function ListPricesPage({ records }: { readonly records: readonly ConfigItemRecord[] }): ReactNode {
  const currency = useProjectCurrency();
  const isDollar = currency.toLowerCase() === "usd";
  const [rate, setRate] = useState(isDollar ? "1" : "");
  const [showSame, setShowSame] = useState(false);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [from, setFrom] = useState("");
  const [isApplying, setApplying] = useState(false);
  const number = Number(plainNumber(rate) ?? Number.NaN);
  const isRate = number > 0;
  const query = useCall("prices.review", { rate: isRate ? number : 1 }, { keepPrevious: true });
  const columns = reviewColumns(chosen, (review, isChosen) => {
    const next = new Set(chosen);
    if (isChosen) next.add(key(review));
    else next.delete(key(review));
    setChosen(next);
  });
  const taken = (query.data?.reviews ?? []).filter((review) => chosen.has(key(review)) && canTake(review));
  return (
    <>
      <DeskBar title="Public list prices">
        <Grow />
        {isApplying ? (
          <Button onClick={() => setApplying(false)}>Choose again</Button>
        ) : (
          <Button onClick={() => navigate("/plans?kind=price")}>Back</Button>
        )}
      </DeskBar>
      <div className={css.listPrices}>
        {isApplying ? (
          <TakeOver
            steps={taken.flatMap((review) => asStep(review, records, currency, from))}
            onDone={() => {
              setChosen(new Set());
              setApplying(false);
            }}
          />
        ) : (
          <>
            <Note tone="blue">
              The list is public list prices with their date, not your contract. Compare the provider’s page
              before you take a price over. Calls that were settled keep their cost.
            </Note>
            {isDollar ? null : (
              <TextInput
                label={`${currency.toUpperCase()} for one US dollar`}
                placeholder="0.80"
                w={200}
                value={rate}
                error={rate !== "" && !isRate ? "A number such as 0.80." : null}
                onChange={(event) => setRate(event.currentTarget.value.trim())}
              />
            )}
            {isRate ? (
              <QueryView query={query} skeleton={<Skeleton lines={10} />}>
                {({ reviews }) => (
                  <>
                    <PlainTable
                      label="Prices beside the list"
                      columns={columns}
                      rows={reviews.filter((review) => showSame || review.kind !== "same")}
                      rowKey={key}
                      empty="Every listed price matches the list."
                    />
                    <Checkbox
                      label={`Also show the ${reviews.filter((review) => review.kind === "same").length} that are as listed`}
                      checked={showSame}
                      onChange={(event) => setShowSame(event.currentTarget.checked)}
                    />
                  </>
                )}
              </QueryView>
            ) : null}
          </>
        )}
      </div>
      {isApplying ? null : (
        <form
          className={css.bar}
          aria-label="Take prices over"
          onSubmit={(event) => {
            event.preventDefault();
            setApplying(true);
          }}
        >
          <TextInput
            type="date"
            size="xs"
            w={150}
            aria-label="In force from"
            value={from}
            onChange={(event) => setFrom(event.currentTarget.value)}
          />
          <span className={css.quiet}>
            {from === ""
              ? "In force from: as the price it corrects, or as listed"
              : "In force from this day, midnight UTC; until then the price of now stays"}
          </span>
          <Grow />
          <Button type="submit" variant="filled" disabled={taken.length === 0}>
            Look at {counted(taken.length, "price")}
          </Button>
        </form>
      )}
    </>
  );
}

/** What the chosen prices change and cost, before they are taken over. */
function TakeOver({
  steps,
  onDone,
}: {
  readonly steps: readonly ConfigStepRecord[];
  readonly onDone: () => void;
}): ReactNode {
  return (
    <>
      <ApplySteps
        steps={steps}
        button="Take over"
        words={{ new: "new price", changed: "corrected" }}
        nothing="Nothing is chosen."
        onDone={onDone}
      />
      <SimulationPanel changes={steps.map(asWanted)} />
    </>
  );
}
