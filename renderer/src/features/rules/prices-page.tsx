import { Button, Checkbox, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { PriceRecord, PriceReview } from "../../../../shared/contract/prices.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useIsReadOnly, useLive } from "../../lib/live.ts";
import { navigate } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Note, Tag, Time, Tokens } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { ReasonForm } from "../../ui/reason-form.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import css from "./editor.module.css";

const parts = [
  ["input_micros_per_million", "in"],
  ["cached_input_micros_per_million", "cached"],
  ["cache_write_micros_per_million", "cache write"],
  ["cache_write_1h_micros_per_million", "write 1 h"],
  ["output_micros_per_million", "out"],
  ["reasoning_micros_per_million", "reasoning"],
] as const;
const inMajor = (micros: number): string => String(micros / 1_000_000);
const key = (review: PriceReview): string => `${review.provider ?? ""} ${review.model}`;
const canTake = (review: PriceReview): boolean =>
  review.proposed !== null && (review.kind === "different" || review.kind === "missing");

/** What would change of a price: a line for each amount that differs. */
function PriceDifference({ review }: { readonly review: PriceReview }): ReactNode {
  const { current, proposed } = review;
  if (!proposed) return <span className={css.quiet}>Not in the catalogue: set it in a preset.</span>;
  const shown = parts.filter(([part]) =>
    review.kind === "same" ? proposed[part] !== null : (current?.[part] ?? null) !== proposed[part],
  );
  return (
    <span className={css.amounts}>
      {shown.map(([part, name]) => (
        <span key={part}>
          <span className={css.quiet}>{name}</span>{" "}
          {review.kind !== "same" && current && current[part] !== null ? (
            <span className={css.removed}>{inMajor(current[part])}</span>
          ) : null}{" "}
          {proposed[part] === null ? null : (
            <span className={review.kind === "same" ? undefined : css.added}>{inMajor(proposed[part])}</span>
          )}
        </span>
      ))}
      {review.tiers.length > 0 ? (
        <span
          className={css.quiet}
          title="Charged by the provider in these tiers; not charged by itself here"
        >
          ({review.tiers.join("; ")})
        </span>
      ) : null}
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
                {review.unpriced.calls > 0 ? (
                  <>
                    , <Tokens value={review.unpriced.calls} /> calls
                  </>
                ) : null}
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

/** The project's prices beside the catalogue of public list prices; a person takes over what is chosen. */
export function PricesPage(): ReactNode {
  const project = useLive((state) => state.connection?.project ?? null);
  const currency = (project?.currency ?? "usd").toUpperCase();
  const isDollar = currency === "USD";
  const [rate, setRate] = useState(isDollar ? "1" : "");
  const [showSame, setShowSame] = useState(false);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const number = Number(rate);
  const isRate = /^\d+(\.\d+)?$/.test(rate) && number > 0;
  const query = useCall("prices.review", { rate: isRate ? number : 1 }, { keepPrevious: true });
  const columns = reviewColumns(chosen, (review, isChosen) => {
    const next = new Set(chosen);
    if (isChosen) next.add(key(review));
    else next.delete(key(review));
    setChosen(next);
  });
  return (
    <div className={css.editor}>
      <DeskBar title="Prices of models">
        <Grow />
        <Button onClick={() => navigate("/rules")}>Back</Button>
      </DeskBar>
      <div className={css.prices}>
        <Note tone="blue">
          The list is public list prices with their date, not your contract. Compare the provider’s page
          before you take a price over. Calls that were settled keep their cost.
        </Note>
        {isDollar ? null : (
          <TextInput
            label={`${currency} for one US dollar`}
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
                  empty="Every listed price is as the list says."
                />
                <Checkbox
                  label={`Also show the ${reviews.filter((review) => review.kind === "same").length} that are as listed`}
                  checked={showSame}
                  onChange={(event) => setShowSame(event.currentTarget.checked)}
                />
                <TakeOver
                  prices={reviews
                    .filter((review) => chosen.has(key(review)) && canTake(review))
                    .flatMap((review) => (review.proposed ? [review.proposed] : []))}
                  onDone={() => setChosen(new Set())}
                />
              </>
            )}
          </QueryView>
        ) : null}
      </div>
    </div>
  );
}

function TakeOver({
  prices,
  onDone,
}: {
  readonly prices: readonly PriceRecord[];
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const isReadOnly = useIsReadOnly();
  const save = async (reason: string): Promise<boolean> => {
    const result = await client.call("prices.save", {
      command_id: crypto.randomUUID(),
      prices: [...prices],
      reason,
    });
    void queries.invalidateQueries({ queryKey: ["prices.review"] });
    if (!result.ok) {
      showFailure("No price was taken over", result.error);
      return false;
    }
    showDone(`${counted(result.value.changed.length, "price")} taken over`);
    onDone();
    return true;
  };
  return (
    <ReasonForm
      label="Take prices over"
      placeholder="Why these prices"
      className={css.saveBar}
      disabled={prices.length === 0 || isReadOnly}
      onSubmit={save}
    >
      Take over {counted(prices.length, "price")}
    </ReasonForm>
  );
}
