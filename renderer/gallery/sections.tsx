import { Button } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import type { ComponentProps, ReactNode } from "react";
import { actNames, acts } from "../../shared/contract/acts.ts";
import { Chart } from "../src/charts/chart.tsx";
import { tokensOverTime } from "../src/charts/options.ts";
import { CallError } from "../src/lib/console.tsx";
import { AmountChips } from "../src/ui/amount-chips.tsx";
import { ActButton, ActForm } from "../src/ui/act-form.tsx";
import { ActList } from "../src/ui/act-list.tsx";
import { AmountInput } from "../src/ui/amount-input.tsx";
import { RemoveButton } from "../src/ui/ask.tsx";
import { ActEffectsView } from "../src/ui/act-effects.tsx";
import { CopyAs } from "../src/ui/copy-as.tsx";
import { ChangedSince, EffectLines, EffectsView } from "../src/ui/correction-effects.tsx";
import { CorrectionFields } from "../src/ui/correction-fields.tsx";
import { CorrectionButton, DecideButtons, UndoButton } from "../src/ui/correction-form.tsx";
import { type Column, DataTable } from "../src/ui/data-table.tsx";
import { DecisionForm } from "../src/ui/decision-form.tsx";
import { DeskBar, Grow } from "../src/ui/desk.tsx";
import * as icons from "../src/ui/icons.tsx";
import {
  CopyButton,
  Cost,
  Facts,
  Id,
  Kbd,
  Meter,
  NameAmong,
  Note,
  PlanName,
  ProposalNote,
  Reason,
  SafeText,
  Section,
  Tag,
  Time,
  TimedText,
  Tokens,
  UserLine,
  UserName,
} from "../src/ui/parts.tsx";
import { PagedTable } from "../src/ui/paged-table.tsx";
import { MoreRows, PlainTable } from "../src/ui/plain-table.tsx";
import { PresetReasons } from "../src/ui/preset-reasons.tsx";
import { ProblemList } from "../src/ui/problem.tsx";
import { ProductionAsk, ProductionLine } from "../src/ui/production-ask.tsx";
import { ReceiptView } from "../src/ui/receipt.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../src/ui/side-detail.tsx";
import {
  EmptyView,
  ErrorBoundary,
  ErrorView,
  FailureLine,
  QueryView,
  Skeleton,
  StaleLine,
} from "../src/ui/states.tsx";
import type { Tone } from "../src/ui/theme.ts";
import { UserPicker } from "../src/ui/user-picker.tsx";
import {
  account,
  act,
  at,
  changed,
  failure,
  minutes,
  proposed,
  unchanged,
  sample,
  type SampleSection,
} from "./samples.ts";
import { versionSection } from "./versions.tsx";

const nothing = (): void => undefined;
const tones: readonly Tone[] = ["red", "amber", "green", "blue", "violet", "grey"];

const hostile = "‮evil‬ <b>bold</b>\u0007\u200b name";

const words: SampleSection = {
  title: "Words and figures",
  samples: [
    sample("UserName", <UserName name="Una Example" id="user-0001" />),
    sample("UserName, without a name", <UserName name={null} id="user-0001" />),
    sample("UserName, hostile", <UserName name={hostile} id="user-0001" />),
    sample(
      "NameAmong, of a name that two have",
      <NameAmong
        user={{ user_id: "user-0001", display_name: "Una Example" }}
        others={[{ user_id: "user-0002", display_name: "Una Example" }]}
      />,
    ),
    sample(
      "ProblemList and ProblemLine",
      <ProblemList
        problems={[
          {
            path: "conditions.all[0].value",
            message: '"lots" is not a number.',
            fix: "Write a number, without quotes.",
          },
        ]}
      />,
    ),
    sample(
      "UserLine",
      <UserLine user={{ user_id: "user-0001", display_name: "Una Example", email: "una@example.com" }} />,
    ),
    sample("PlanName, of a plan that is gone", <PlanName id="gold-2019" />),
    sample("SafeText", <SafeText text="A line of text." />),
    sample("TimedText", <TimedText text="Messages are due since 2026-11-29 02:51:32.383+00 here." />),
    sample("Reason", <Reason reason="daily_limit" />),
    sample("SafeText, hostile and long", <SafeText text={`${hostile} `.repeat(20)} length={60} />),
    sample("CopyButton", <CopyButton text="copied" />),
    sample("CopyButton, with a label", <CopyButton text="copied" label="Copy details" />),
    sample("Id", <Id value="7f2c8a52-0000-4000-8000-000000000001" />),
    sample("Id, without copy", <Id value="7f2c8a52-0000-4000-8000-000000000001" copy={false} />),
    sample("Tokens", <Tokens value={1_234_567} />),
    sample("Tokens, compact", <Tokens value={1_234_567} compact />),
    sample("Tokens, negative", <Tokens value={-42} />),
    sample("Tokens, unknown", <Tokens value={null} />),
    sample("Cost", <Cost micros={12_345_678} currency="gbp" />),
    sample("Cost, unknown", <Cost micros={null} currency={null} />),
    ...(["relative", "clock", "short", "full"] as const).map((form) =>
      sample(`Time, ${form}`, <Time at={at} form={form} zone="Europe/London" />),
    ),
    sample("Time, never", <Time at={null} />),
    ...tones.map((tone) => sample(`Tag, ${tone}`, <Tag tone={tone}>{tone}</Tag>)),
    sample(
      "Tag, plain and dot",
      <>
        <Tag tone="amber" plain>
          plain
        </Tag>{" "}
        <Tag tone="green" dot>
          dot
        </Tag>
      </>,
    ),
    ...[0, 50, 85, 100, 163].map((percent) =>
      sample(`Meter, ${percent} %`, <Meter percent={percent} label="Used" />),
    ),
    sample("Meter, unknown", <Meter percent={null} />),
    ...tones.map((tone) => sample(`Note, ${tone}`, <Note tone={tone}>What a person should know.</Note>)),
    sample(
      "ProposalNote",
      <ProposalNote why="More than 1,000,000 tokens need the approval of a second person" />,
    ),
    sample("Kbd", <Kbd>Esc</Kbd>),
    sample(
      "Section",
      <Section title="Balance" aside={<Tag tone="green">sound</Tag>}>
        Its content.
      </Section>,
    ),
    sample(
      "Facts",
      <Facts
        rows={[
          ["Plan", "Pro"],
          ["Time zone", "Europe/London"],
        ]}
      />,
    ),
  ],
};

const query = (state: { data?: string; error?: Error }): UseQueryResult<string, Error> =>
  ({ data: undefined, error: null, refetch: async () => undefined, ...state }) as unknown as UseQueryResult<
    string,
    Error
  >;

function Broken(): ReactNode {
  throw new Error("a part that fails on purpose");
}

const states: SampleSection = {
  title: "States of a screen",
  wide: true,
  samples: [
    sample("EmptyView", <EmptyView title="Nothing here yet" />),
    sample(
      "EmptyView, with a way on",
      <EmptyView title="No project is open" actions={<Button variant="filled">Open one</Button>}>
        Connect a project, or look around in the sample.
      </EmptyView>,
    ),
    sample("Skeleton", <Skeleton lines={3} />),
    sample("ErrorView", <ErrorView failure={failure} />),
    sample("ErrorView, with retry", <ErrorView failure={failure} onRetry={nothing} />),
    sample("FailureLine", <FailureLine failure={failure} onRetry={nothing} />),
    sample("StaleLine", <StaleLine asOf={at} />),
    sample("StaleLine, with words", <StaleLine asOf={at}>Only users seen here before are found.</StaleLine>),
    sample("QueryView, loading", <QueryView query={query({})}>{(data) => data}</QueryView>),
    sample(
      "QueryView, failed",
      <QueryView query={query({ error: new CallError(failure) })}>{(data) => data}</QueryView>,
    ),
    sample(
      "QueryView, answered",
      <QueryView query={query({ data: "The answer." })}>{(data) => data}</QueryView>,
    ),
    sample(
      "QueryView, old answer and a failure",
      <QueryView
        query={query({ data: "The old answer.", error: new CallError({ ...failure, code: "odd" }) })}
      >
        {(data) => data}
      </QueryView>,
    ),
    sample(
      "ErrorBoundary, caught",
      <ErrorBoundary>
        <Broken />
      </ErrorBoundary>,
    ),
  ],
};

interface Row {
  readonly id: string;
  readonly name: string;
  readonly tokens: number;
}
const rows: readonly Row[] = Array.from({ length: 8 }, (_, index) => ({
  id: `row-${index}`,
  name: `Row ${index + 1}`,
  tokens: 1_000 * (index + 1),
}));
const columns: readonly Column<Row>[] = [
  { id: "name", header: "Name", width: 160, grow: 1, fixed: true, sort: "name", cell: (row) => row.name },
  {
    id: "tokens",
    header: "Tokens",
    width: 100,
    align: "right",
    sort: "tokens",
    hint: "Used this month",
    cell: (row) => <Tokens value={row.tokens} />,
  },
];
const table = { columns, rowKey: (row: Row) => row.id };
const list = <DataTable {...table} id="gallery-side" label="Rows" rows={rows} fit />;

const paged = (
  state: Partial<ComponentProps<typeof PagedTable>["query"]>,
): ComponentProps<typeof PagedTable>["query"] =>
  ({
    data: undefined,
    error: null,
    refetch: async () => undefined,
    hasNextPage: false,
    isFetchingNextPage: false,
    fetchNextPage: async () => undefined,
    ...state,
  }) as unknown as ComponentProps<typeof PagedTable>["query"];

const tables: SampleSection = {
  title: "Tables and layout",
  wide: true,
  samples: [
    sample(
      "DataTable, sorted, a row open",
      <DataTable
        {...table}
        id="gallery"
        label="Rows"
        rows={rows}
        onOpen={nothing}
        openKey="row-2"
        sort={{ key: "tokens", descending: true }}
        onSort={nothing}
        columnMenu
        footer="8 rows"
      />,
      260,
    ),
    sample(
      "DataTable, empty",
      <DataTable
        {...table}
        id="gallery-empty"
        label="No rows"
        rows={[]}
        empty={<EmptyView title="No rows" />}
      />,
      160,
    ),
    sample(
      "PlainTable, rows open",
      <PlainTable {...table} label="Short" rows={rows.slice(0, 3)} onOpen={nothing} empty="None." />,
    ),
    sample("PlainTable, empty", <PlainTable {...table} label="None" rows={[]} empty="None." />),
    sample(
      "PagedTable, more",
      <PagedTable
        {...table}
        query={paged({ data: rows, hasNextPage: true })}
        skeletonLines={3}
        label="Paged"
        rows={rows.slice(0, 3)}
        empty="None."
      />,
    ),
    sample(
      "PagedTable, old rows and a failure",
      <PagedTable
        {...table}
        query={paged({ data: rows, error: new CallError(failure) })}
        skeletonLines={3}
        label="Old"
        rows={rows.slice(0, 1)}
        empty="None."
      />,
    ),
    sample(
      "PagedTable, loading",
      <PagedTable {...table} query={paged({})} skeletonLines={3} label="Loading" rows={[]} empty="None." />,
    ),
    sample("MoreRows, more", <MoreRows shown={50} hasMore isLoading={false} onMore={nothing} />),
    sample("MoreRows, loading", <MoreRows shown={50} hasMore isLoading onMore={nothing} />),
    sample("MoreRows, all", <MoreRows shown={50} hasMore={false} isLoading={false} onMore={nothing} />),
    sample(
      "DeskBar, Grow",
      <DeskBar title="Users">
        <Button>One</Button>
        <Grow />
        <Button>Other</Button>
      </DeskBar>,
    ),
    sample(
      "SideDetail, closed",
      <SideDetail id="gallery-closed" list={list} detail={null} detailLabel="Detail" onClose={nothing} />,
      220,
    ),
    sample(
      "SideDetail, open: DetailBar, DetailScroll",
      <SideDetail
        id="gallery-open"
        list={list}
        detail={
          <>
            <DetailBar title="Una Example" onClose={nothing}>
              <Button>Act</Button>
            </DetailBar>
            <DetailScroll>Its content.</DetailScroll>
          </>
        }
        detailLabel="Detail"
        onClose={nothing}
        initialWidth={240}
        minWidth={200}
        minListWidth={200}
      />,
      220,
    ),
    sample(
      "Chart",
      <Chart
        title="Tokens per minute: used, and asked for by decision"
        build={tokensOverTime(minutes, 1, "Europe/London")}
        table={{ header: ["Minute", "Calls"], rows: minutes.map((each) => [each.start, each.calls]) }}
        fileName="gallery"
      />,
      220,
    ),
  ],
};

const actions: SampleSection = {
  title: "Acts and choices",
  wide: true,
  samples: [
    sample(
      "ActButton",
      <ActButton
        act="flag_user"
        record={account}
        icon={<icons.FlagIcon size={14} />}
        opened={false}
        onOpened={nothing}
      />,
    ),
    // The others are done without a form.
    ...actNames
      .filter((act) => "reason" in acts[act].fields)
      .map((act) => sample(`ActForm, ${act}`, <ActForm act={act} record={account} onDone={nothing} />)),
    sample("AmountInput, empty", <AmountInput label="Tokens" value={null} min={1} onChange={nothing} />),
    sample("AmountInput, filled", <AmountInput label="Tokens" value={120_000} min={1} onChange={nothing} />),
    sample(
      "BusyButton, the element of every Button, as it waits and at rest",
      <>
        <Button loading>Give tokens</Button> <Button>Give tokens</Button>
      </>,
    ),
    sample("CorrectionButton", <CorrectionButton kind="give_tokens" userId={account.user_id} plan="pro" />),
    sample(
      "CorrectionFields, of a raised limit",
      <CorrectionFields
        kind="raise_limit"
        fields={{ daily_limit: 200_000, monthly_limit: null, until: "2027-01-01T00:00:00Z" }}
        set={nothing}
        plan="pro"
        given={{}}
      />,
    ),
    sample(
      "CorrectionFields, of a block",
      <CorrectionFields kind="block_user" fields={{ until: null }} set={nothing} plan="" given={{}} />,
    ),
    sample(
      "DecisionForm, with a second person",
      <DecisionForm
        form="gallery"
        title="Give tokens"
        button="Give tokens"
        reasons={["Goodwill"]}
        isDangerous={false}
        preview={{
          effects: changed,
          why: "More than 1,000,000 tokens need the approval of a second person",
          version: 3,
        }}
        failure={null}
        isReady
        done="Tokens given"
        failed="No tokens given"
        send={() => new Promise(nothing)}
        onDone={nothing}
      />,
    ),
    sample("ChangedSince", <ChangedSince before={changed.before} after={changed.after} />),
    sample("UndoButton", <UndoButton act={act} />),
    sample("DecideButtons, of a colleague's act", <DecideButtons act={proposed} isMine={false} />),
    sample("DecideButtons, of my own act", <DecideButtons act={proposed} isMine />),
    sample("EffectsView", <EffectsView effects={changed} />),
    sample("EffectLines", <EffectLines lines={[["Flagged", "no", "for review", ""]]} />),
    sample(
      "ActEffectsView",
      <ActEffectsView
        effects={{
          lines: [["Calls", "decided by the rules", "stopped until 24 Nov 2026, 12:00", ""]],
          user: "nothing.",
        }}
      />,
    ),
    sample("EffectsView, nothing changes", <EffectsView effects={unchanged} />),
    sample("ActList, in every state", <ActList mine={false} userId={null} status={null} />),
    sample("ActList, empty", <ActList mine userId={null} status={null} />),
    sample("ProductionAsk, with nothing to ask", <ProductionAsk />),
    sample("ProductionLine, outside production", <ProductionLine />),
    sample("PresetReasons", <PresetReasons reasons={["Goodwill", "Credited twice"]} onPick={nothing} />),
    sample(
      "RemoveButton",
      <RemoveButton label="Remove" name="Remove the project" onRemove={nothing}>
        Remove the project from this console?
      </RemoveButton>,
    ),
    sample("CopyAs", <CopyAs list={() => null} />),
    sample("AmountChips", <AmountChips tokens={10_000} onPick={nothing} />),
    sample("UserPicker", <UserPicker userId={null} onChange={nothing} />),
    sample("UserPicker, chosen, in a form", <UserPicker userId="user-0001" onChange={nothing} isForm />),
  ],
};

const receipts: SampleSection = {
  title: "Receipts",
  wide: true,
  samples: [
    sample("ReceiptView, ReceiptCopies, blocked", <ReceiptView decisionId={1} />),
    sample("ReceiptView, allowed", <ReceiptView decisionId={2} />),
    sample("ReceiptView, not found", <ReceiptView decisionId={3} />),
    sample("ReceiptView, loading", <ReceiptView decisionId={4} />),
  ],
};

const signs: SampleSection = {
  title: "Icons",
  samples: Object.entries(icons).map(([name, Icon]) => sample(name, <Icon size={20} />)),
};

export const sections: readonly SampleSection[] = [
  words,
  states,
  tables,
  versionSection,
  actions,
  receipts,
  signs,
];
