/** Stripe events that could not be acted on: a person lets them through, with what was missing, or sets them aside. */
import { Button, Select, Textarea } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import type { StripeEvent } from "../../../../shared/contract/finance.ts";
import { isRecord } from "../../../../shared/governance/values.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { useWhyNot } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { useUnsent } from "../../lib/unsent.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar } from "../../ui/desk.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Facts, Id, Note, SafeText, Section, Time } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, StaleLine } from "../../ui/states.tsx";
import { UserPicker } from "../../ui/user-picker.tsx";
import { useFinanceRefresh } from "./case-acts.tsx";
import css from "./finance.module.css";
import { PayerSuggestions } from "./payers.tsx";
import { minorMoney } from "./words.ts";
import { type Amount, AmountInput } from "../../ui/amount-input.tsx";

type Pack = OperationOutput<"finance.stripe_events">["packs"][number];

interface EventDetails {
  readonly amount_minor: number | null;
  readonly currency: string | null;
  readonly customer: string | null;
  readonly email: string | null;
  readonly user_id: string | null;
  readonly pack_id: string | null;
  readonly tokens: string | null;
  readonly metadata: readonly (readonly [string, string])[];
}

const textOf = (value: unknown): string | null =>
  typeof value === "string" && value.trim() !== "" ? value : null;
const objectOf = (value: unknown): Readonly<Record<string, unknown>> => (isRecord(value) ? value : {});

/** The content of an event, whatever its shape: anybody can write metadata. */
export function readEvent(payload: unknown): EventDetails {
  const object = objectOf(objectOf(objectOf(payload)["data"])["object"]);
  const metadata = objectOf(object["metadata"]);
  const amount =
    object["amount_total"] ?? object["amount_received"] ?? object["amount_paid"] ?? object["amount"];
  const named = (...names: readonly string[]): string | null =>
    names.map((name) => textOf(metadata[name])).find((value) => value !== null) ?? null;
  return {
    amount_minor: typeof amount === "number" && Number.isSafeInteger(amount) ? amount : null,
    currency: textOf(object["currency"]),
    customer: textOf(object["customer"]),
    email: textOf(objectOf(object["customer_details"])["email"]) ?? textOf(object["customer_email"]),
    user_id: named("user_id", "userId", "userid") ?? textOf(object["client_reference_id"]),
    pack_id: named("pack_id", "packId", "packid"),
    tokens: named("tokens"),
    metadata: Object.entries(metadata)
      .slice(0, 50)
      .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)] as const),
  };
}

/** Only these can be let through with what a person names; the others wait for what they lack. */
const isOrder = (type: string): boolean =>
  [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "payment_intent.succeeded",
  ].includes(type);

const columns: readonly Column<StripeEvent>[] = [
  {
    id: "why",
    header: "Why it waits",
    width: 170,
    grow: 1,
    cell: (each) => capitalise(codeWords(each.reason ?? "not known")),
  },
  {
    id: "type",
    header: "Event",
    width: 190,
    grow: 0.8,
    cell: (each) => clip(cleanText(each.event_type), 60),
  },
  {
    id: "amount",
    header: "Amount",
    width: 96,
    align: "right",
    cell: (each) => {
      const details = readEvent(each.payload);
      return minorMoney(details.amount_minor, details.currency);
    },
  },
  { id: "at", header: "Received", width: 120, cell: (each) => <Time at={each.received_at} form="short" /> },
  {
    id: "tries",
    header: "Deliveries",
    width: 90,
    align: "right",
    cell: (each) => formatTokens(each.attempts),
  },
  {
    id: "id",
    header: "Id",
    width: 130,
    grow: 0.4,
    cell: (each) => <Id value={each.event_id} head={10} copy={false} />,
  },
];

export function StripeEvents({ openId }: { readonly openId: string | null }): ReactNode {
  const query = useCall("finance.stripe_events", {}, { refetchMs: 15_000 });
  const address = (id: string | null): string => placeAddress(["finance", "events", ...(id ? [id] : [])]);
  const close = (): void => navigate(address(null));
  return (
    <QueryView query={query}>
      {({ events, packs, waiting, as_of: asOf }) => {
        const open = openId ? events.find((each) => each.event_id === openId) : undefined;
        return (
          <SideDetail
            id="stripe-events"
            initialWidth={520}
            detailLabel="Stripe event"
            onClose={close}
            list={
              <>
                <DeskBar title="Stripe events that wait for a person" />
                {asOf ? <StaleLine asOf={asOf} /> : null}
                <DataTable
                  id={openId ? "stripe-events-narrow" : "stripe-events"}
                  label="Stripe events"
                  columns={openId ? columns.slice(0, 3) : columns}
                  rows={events}
                  rowKey={(each) => each.event_id}
                  keys
                  openKey={openId}
                  onOpen={(each) => navigate(address(each.event_id), { replace: openId !== null })}
                  empty={
                    <EmptyView title="No event waits">
                      Every event that Stripe sent was acted on, or needed nothing.
                    </EmptyView>
                  }
                  footer={
                    <span>
                      {events.length < waiting ? `The newest ${events.length.toLocaleString("en")} of ` : ""}
                      {counted(waiting, "event")}
                    </span>
                  }
                />
              </>
            }
            detail={
              openId === null ? null : open ? (
                <EventDetail key={open.event_id} event={open} packs={packs} onClose={close} />
              ) : (
                <>
                  <DetailBar title="Stripe event" onClose={close} />
                  <EmptyView title="This event does not wait any more">
                    Somebody decided it, or Stripe sent what it lacked.
                  </EmptyView>
                </>
              )
            }
          />
        );
      }}
    </QueryView>
  );
}

function EventDetail({
  event,
  packs,
  onClose,
}: {
  readonly event: StripeEvent;
  readonly packs: readonly Pack[];
  readonly onClose: () => void;
}): ReactNode {
  const details = readEvent(event.payload);
  const text = (value: string | null): ReactNode =>
    value ? <SafeText text={value} length={80} /> : "not known";
  return (
    <>
      <DetailBar title={capitalise(codeWords(event.reason ?? "Waits"))} onClose={onClose} />
      <DetailScroll>
        <div className={css.detail}>
          <Facts
            rows={[
              ["Event", <code key="t">{clip(cleanText(event.event_type), 80)}</code>],
              ["Amount", minorMoney(details.amount_minor, details.currency)],
              ["User", text(details.user_id)],
              ["Pack", text(details.pack_id)],
              ["Tokens", text(details.tokens)],
              ["Customer", text(details.customer)],
              ["E-mail", text(details.email)],
              ["Received", <Time key="r" at={event.received_at} form="full" />],
              ["Id", <Id key="i" value={event.event_id} head={24} tail={6} />],
            ]}
          />
          <Decide event={event} details={details} packs={packs} onDone={onClose} />
          {details.metadata.length > 0 ? (
            <Section title="Metadata, as it was sent">
              <Facts
                rows={details.metadata.map(
                  ([name, value]) =>
                    [
                      clip(cleanText(name), 60) || "(no name)",
                      <SafeText key={name} text={value} length={300} />,
                    ] as const,
                )}
              />
            </Section>
          ) : null}
          <details className={css.raw}>
            <summary>The whole event</summary>
            <pre>{clip(JSON.stringify(event.payload, null, 2) ?? "", 20_000)}</pre>
          </details>
        </div>
      </DetailScroll>
    </>
  );
}

interface Typed {
  readonly reason: string;
  readonly userId: string | null;
  readonly packId: string | null;
  readonly tokens: Amount;
}

/** Text typed about an event is kept while another event is open. */
function useTyped({ event_id: id }: StripeEvent) {
  const [typed, setTyped, forget] = useUnsent<Typed>(`event:${id}`, () => ({
    reason: "",
    userId: null,
    packId: null,
    tokens: null,
  }));
  return {
    ...typed,
    type: (more: Partial<Typed>): void => setTyped((before) => ({ ...before, ...more })),
    forget,
  };
}

function Decide({
  event,
  details,
  packs,
  onDone,
}: {
  readonly event: StripeEvent;
  readonly details: EventDetails;
  readonly packs: readonly Pack[];
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const whyNot = useWhyNot();
  const refresh = useFinanceRefresh();
  const [commands] = useState(() => ({ release: crypto.randomUUID(), dismiss: crypto.randomUUID() }));
  const { reason, userId, packId, tokens, type, forget } = useTyped(event);
  const setUserId = (next: string | null): void => type({ userId: next });
  const [busy, setBusy] = useState<"release" | "dismiss" | null>(null);
  const words = reason.trim();
  const can = whyNot === null && words.length >= 3;
  // The price of a pack in force is its latest.
  const choices = [...new Map(packs.map((pack) => [pack.pack_id, pack])).values()];
  const release = async (): Promise<void> => {
    // A number that cannot be read must not count as an empty field, which means "as the pack has it".
    if (tokens === undefined) return;
    setBusy("release");
    const result = await client.call("finance.release_event", {
      command_id: commands.release,
      event_id: event.event_id,
      reason: words,
      user_id: userId,
      pack_id: packId,
      tokens,
    });
    setBusy(null);
    refresh();
    if (!result.ok) return showFailure("Not released", result.error);
    const given = result.value.effects.reduce((sum, each) => sum + each.tokens, 0);
    showDone(`Released: ${formatTokens(given)} tokens`);
    forget();
    onDone();
  };
  const dismiss = async (): Promise<void> => {
    setBusy("dismiss");
    const result = await client.call("finance.dismiss_event", {
      command_id: commands.dismiss,
      event_id: event.event_id,
      reason: words,
    });
    setBusy(null);
    refresh();
    if (!result.ok) return showFailure("Not dismissed", result.error);
    showDone("Dismissed: nothing was credited");
    forget();
    onDone();
  };
  return (
    <div className={css.panel} role="region" aria-label="Decide">
      {isOrder(event.event_type) ? (
        <>
          <div className={css.field}>
            <span>
              User {details.user_id ? "(instead of the one that it names)" : "(the event names none)"}
            </span>
            <PayerSuggestions eventId={event.event_id} taken={userId} onTake={setUserId} />
            <UserPicker userId={userId} onChange={setUserId} isForm />
          </div>
          <Select
            label="Pack"
            placeholder={details.pack_id ? "As in the event" : "The event names none"}
            clearable
            searchable
            data={choices.map((pack) => ({
              value: pack.pack_id,
              label: `${pack.pack_id}: ${formatTokens(pack.tokens)} tokens, ${minorMoney(pack.price_minor, pack.currency)}`,
            }))}
            value={packId}
            onChange={(next) => type({ packId: next })}
          />
          <AmountInput
            label="Tokens, if not the pack's"
            min={1}
            max={100_000_000}
            value={tokens}
            onChange={(next) => type({ tokens: next })}
          />
        </>
      ) : (
        <Note tone="grey">Put right what is missing, then release it: it is acted on as it is.</Note>
      )}
      <Textarea
        label="Reason"
        description="Kept in the audit."
        autosize
        minRows={2}
        maxLength={1000}
        value={reason}
        onChange={(change) => type({ reason: change.currentTarget.value })}
      />
      {whyNot === null ? null : <Note tone="amber">{whyNot}.</Note>}
      <div className={css.buttons}>
        <Button
          variant="filled"
          disabled={!can || tokens === undefined}
          loading={busy === "release"}
          onClick={() => void release()}
        >
          Release
        </Button>
        <Button disabled={!can} loading={busy === "dismiss"} onClick={() => void dismiss()}>
          Dismiss
        </Button>
      </div>
    </div>
  );
}
