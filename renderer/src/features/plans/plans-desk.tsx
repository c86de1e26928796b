import { Button, TextInput } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";
import type { ConfigItemRecord } from "../../../../shared/contract/plans.ts";
import {
  type ConfigKind,
  describeField,
  fieldsOf,
  settingFields,
} from "../../../../shared/governance/configuration/index.ts";
import { useCall } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { useIsLive, useLive, useProjectCurrency } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { actorWords, cleanText, clip, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { PlusIcon, SearchIcon } from "../../ui/icons.tsx";
import { Tag, Time } from "../../ui/parts.tsx";
import { DetailBar, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import tabStyles from "../../ui/tabs.module.css";
import { ConfigHistory, RetiredRecord } from "./history.tsx";
import { MessagesPage } from "./messages-page.tsx";
import { kindWords, moneyOf, pages, readId, titleOf } from "./kinds.ts";
import css from "./plans.module.css";
import { ListPricesPage } from "./list-prices-page.tsx";
import { PresetsPage } from "./presets-page.tsx";
import { ProposalsPage } from "./proposals-page.tsx";
import { RecordPage } from "./record-page.tsx";

/** A line of the list: a record in force, or a setting that has its default. */
interface Line {
  readonly id: string;
  readonly kind: ConfigKind;
  readonly key: string;
  readonly record: ConfigItemRecord | null;
  readonly waits: boolean;
}

function linesOf(
  kind: ConfigKind,
  records: readonly ConfigItemRecord[],
  waiting: ReadonlySet<string>,
): Line[] {
  const kinds: readonly ConfigKind[] = kind === "setting" ? ["project", "setting"] : [kind];
  const there = records
    .filter((each) => kinds.includes(each.kind) && !each.is_retired)
    .map(
      (each): Line => ({
        id: each.id,
        kind: each.kind,
        key: each.key,
        record: each,
        waits: waiting.has(each.id),
      }),
    );
  if (kind !== "setting") return sorted(kind, there);
  const known = [...settingFields.keys()].map((key): Line => {
    const id = `setting:${key}`;
    return there.find((each) => each.id === id) ?? { id, kind, key, record: null, waits: waiting.has(id) };
  });
  const isKnown = new Set(known.map(({ id }) => id));
  const project = there.filter((each) => each.kind === "project");
  return [...project, ...known, ...there.filter((each) => each.kind === "setting" && !isKnown.has(each.id))];
}

/** Plans and packs by size, the rest by name. */
function sorted(kind: ConfigKind, lines: Line[]): Line[] {
  const size = ({ record }: Line): number =>
    Number(record?.record[kind === "plan" ? "monthly_allowance" : kind === "pack" ? "tokens" : ""] ?? 0);
  return lines.toSorted((a, b) => size(a) - size(b) || (a.key < b.key ? -1 : 1));
}

function columnsOf(kind: ConfigKind, currency: string, isNarrow: boolean): readonly Column<Line>[] {
  const fields = kind === "setting" ? [] : fieldsOf(kind, "");
  const shown = kindWords[kind].columns.flatMap((name) => fields.filter((field) => field.name === name));
  const name: Column<Line> = {
    id: "name",
    header: "Name",
    width: 170,
    grow: 1,
    fixed: true,
    cell: ({ kind: own, key, record, waits }) => {
      const title = titleOf(own, key, record?.record ?? null);
      return (
        <div className={css.name}>
          <span title={clip(cleanText(title), 500)}>
            {clip(cleanText(title), 120)} {waits ? <Tag tone="amber">waits to be sent</Tag> : null}
          </span>
          {title === key ? null : <span className={css.quiet}>{clip(cleanText(key), 120)}</span>}
        </div>
      );
    },
  };
  const value: Column<Line> = {
    id: "value",
    header: "Value",
    width: 150,
    grow: 1.2,
    fixed: true,
    cell: ({ kind: own, key, record }) => {
      if (own === "project")
        return clip(
          cleanText(
            `${String(record?.record["currency"]).toUpperCase()}, new users on ${String(record?.record["default_plan"])}`,
          ),
          120,
        );
      const [field] = fieldsOf("setting", key);
      if (!field) return null;
      const said = describeField(field, record ? record.record["value"] : field.otherwise, currency);
      return record ? (
        clip(cleanText(said), 160)
      ) : (
        <span className={css.quiet}>{clip(cleanText(said), 160)} (default)</span>
      );
    },
  };
  const rest: readonly Column<Line>[] =
    kind === "setting"
      ? [value]
      : shown.map((field) => ({
          id: field.name,
          header: field.label.replace(", a million tokens", ""),
          ...(field.hint ? { hint: field.hint } : {}),
          width: field.type.is === "whole" ? 146 : 110,
          ...(field.type.is === "whole" ? { align: "right" as const } : { grow: 0.5 }),
          cell: ({ record }: Line) =>
            clip(
              cleanText(
                describeField(
                  fieldsOf(kind, "", record?.record).find((each) => each.name === field.name) ?? field,
                  record?.record[field.name],
                  moneyOf(kind, record?.record, currency),
                ),
              ),
              120,
            ),
        }));
  const changed: Column<Line> = {
    id: "changed",
    header: "Last change",
    width: 130,
    cell: ({ record }) =>
      record ? (
        <div className={css.name}>
          <span>
            v{record.version}, <Time at={record.at} />
          </span>
          <span className={css.quiet}>{actorWords(record.by ?? "")}</span>
        </div>
      ) : null,
  };
  return isNarrow ? [name, ...rest.slice(0, 1)] : [name, ...rest, changed];
}

/** Plans, packs, prices, estimates, topics, alerts and settings: what is in force, and how it is changed safely. */
export function PlansDesk(): ReactNode {
  const place = usePlace();
  const query = useCall("plans.list", {}, { refetchMs: 15_000 });
  const doing = place.query.get("do");
  return (
    <QueryView query={query} skeleton={<Skeleton lines={10} />}>
      {({ records, second_person_for, as_of }) =>
        doing === "history" ? (
          <ConfigHistory />
        ) : doing === "presets" ? (
          <PresetsPage />
        ) : doing === "messages" ? (
          <MessagesPage />
        ) : doing === "proposals" ? (
          <ProposalsPage records={records} />
        ) : doing === "prices" ? (
          <ListPricesPage records={records} />
        ) : (
          <KindView records={records} secondPersonFor={second_person_for} asOf={as_of} />
        )
      }
    </QueryView>
  );
}

function useKind(): ConfigKind {
  const place = usePlace();
  const own = readId(place.parts[1] ?? "")?.kind ?? place.query.get("kind");
  return own === "project" ? "setting" : (pages.find((each) => each === own) ?? "plan");
}

function KindView({
  records,
  secondPersonFor,
  asOf,
}: {
  readonly records: readonly ConfigItemRecord[];
  readonly secondPersonFor: readonly string[];
  readonly asOf: string;
}): ReactNode {
  const place = usePlace();
  const isLive = useIsLive();
  const currency = useProjectCurrency();
  const intents = useLive((state) => state.intents);
  const kind = useKind();
  const [text, setText] = useState("");
  const id = place.parts[1] ?? null;
  const isNew = place.query.get("do") === "new";
  const isOpen = id !== null || isNew;
  const waiting = useMemo(
    () =>
      new Set(
        intents
          .filter((intent) => intent.kind === "save_config" && intent.status === "pending")
          .map((intent) => intent.subject),
      ),
    [intents],
  );
  const columns = useMemo(() => columnsOf(kind, currency, isOpen), [kind, currency, isOpen]);
  const wanted = text.trim().toLowerCase();
  const lines = linesOf(kind, records, waiting).filter(({ key, record }) =>
    `${key} ${titleOf(kind, key, record?.record ?? null)}`.toLowerCase().includes(wanted),
  );
  const words = kindWords[kind];
  const begin = (): void => navigate(placeAddress(["plans"], { kind, do: "new" }));
  const close = (): void => navigate(placeAddress(["plans"], { kind }));
  useKeys({ n: begin }, kind !== "setting");
  return (
    <SideDetail
      id="plans"
      initialWidth={540}
      minListWidth={360}
      detailLabel="Record"
      onClose={close}
      list={
        <>
          <DeskBar title="Plans">
            <TextInput
              data-desk-search
              w={160}
              aria-label={`Search ${words.many.toLowerCase()}`}
              placeholder="Name"
              leftSection={<SearchIcon size={14} />}
              value={text}
              onChange={(event) => setText(event.currentTarget.value)}
            />
            <Grow />
            {isOpen ? null : <DeskButtons hasSecondPerson={secondPersonFor.length > 0} kind={kind} />}
            {kind === "setting" ? null : (
              <Button
                variant="filled"
                leftSection={<PlusIcon size={14} />}
                title={`New ${words.one} (n)`}
                onClick={begin}
              >
                New {words.one}
              </Button>
            )}
          </DeskBar>
          <nav className={`${tabStyles.tabs} ${css.tabs}`} aria-label="Kinds of records">
            {pages.map((each) => (
              <a
                key={each}
                href={`#${placeAddress(["plans"], { kind: each })}`}
                aria-current={each === kind ? "page" : undefined}
              >
                {kindWords[each].many}
              </a>
            ))}
          </nav>
          {isLive ? null : <StaleLine asOf={asOf}>The {words.many.toLowerCase()} as they were</StaleLine>}
          <DataTable
            id={isOpen ? "plans-narrow" : `plans-${kind}`}
            label={words.many}
            columns={columns}
            rows={lines}
            rowKey={(line) => line.id}
            rowHeight={46}
            keys
            openKey={id}
            onOpen={(line) => navigate(placeAddress(["plans", line.id]), { replace: id !== null })}
            empty={
              wanted ? (
                <EmptyView title={`No ${words.one} fits`} />
              ) : (
                <EmptyView title={`No ${words.several}`}>{words.about}</EmptyView>
              )
            }
            footer={
              <span>
                {counted(lines.length, words.one, words.several)}. {words.about}
              </span>
            }
          />
        </>
      }
      detail={
        isOpen ? (
          <Detail
            key={id ?? `new ${kind}`}
            id={id}
            kind={kind}
            records={records}
            secondPersonFor={secondPersonFor}
            onClose={close}
          />
        ) : null
      }
    />
  );
}

function Detail({
  id,
  kind,
  records,
  secondPersonFor,
  onClose,
}: {
  readonly id: string | null;
  readonly kind: ConfigKind;
  readonly records: readonly ConfigItemRecord[];
  readonly secondPersonFor: readonly string[];
  readonly onClose: () => void;
}): ReactNode {
  const place = usePlace();
  const around = { records, secondPersonFor };
  if (id === null) {
    const from = records.find((each) => each.id === place.query.get("from"));
    return (
      <RecordPage
        kind={kind}
        record={null}
        template={from?.record ?? null}
        around={around}
        onClose={onClose}
      />
    );
  }
  const named = readId(id);
  const record = records.find((each) => each.id === id && !each.is_retired) ?? null;
  if (record) return <RecordPage kind={record.kind} record={record} around={around} onClose={onClose} />;
  if (named?.kind === "setting" && settingFields.has(named.key))
    return (
      <RecordPage kind="setting" record={null} settingKey={named.key} around={around} onClose={onClose} />
    );
  return (
    <>
      <DetailBar title={clip(cleanText(named?.key ?? id), 80)} onClose={onClose} />
      {named ? (
        <RetiredRecord kind={named.kind} id={id} />
      ) : (
        <EmptyView title="There is nothing at this address" />
      )}
    </>
  );
}

function DeskButtons({
  kind,
  hasSecondPerson,
}: {
  readonly kind: ConfigKind;
  readonly hasSecondPerson: boolean;
}): ReactNode {
  const proposals = useCall("plans.proposals", {}, { refetchMs: 30_000, enabled: hasSecondPerson });
  const waiting = proposals.data?.proposals.filter(({ status }) => status === "proposed").length ?? 0;
  return (
    <>
      {kind === "price" ? (
        <Button onClick={() => navigate("/plans?do=prices")}>Compare with the list</Button>
      ) : null}
      {hasSecondPerson ? (
        <Button onClick={() => navigate("/plans?do=proposals")}>
          Proposals{waiting > 0 ? ` (${waiting})` : ""}
        </Button>
      ) : null}
      {kind === "setting" ? (
        <Button onClick={() => navigate("/plans?do=messages")}>Mails to users</Button>
      ) : null}
      <Button onClick={() => navigate("/plans?do=presets")}>Presets</Button>
      <Button onClick={() => navigate("/plans?do=history")}>History</Button>
    </>
  );
}
