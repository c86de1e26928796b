/** Versions, comparisons and long runs, as rules and plans show them. */
import { Button } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { DayRange } from "../src/ui/day-range.tsx";
import { DifferenceView } from "../src/ui/difference.tsx";
import { Tag } from "../src/ui/parts.tsx";
import { ReasonForm } from "../src/ui/reason-form.tsx";
import { RunState } from "../src/ui/run-state.tsx";
import {
  OlderPages,
  StepLine,
  VersionHead,
  VersionLine,
  VersionList,
  VersionPage,
} from "../src/ui/versions.tsx";
import { at, failure, sample, type SampleSection } from "./samples.ts";

const allowance = [
  { part: "Tokens a month", removed: ["500,000 tokens"], added: ["600,000 tokens"] },
  { part: "Words and phrases", removed: [], added: ["football", "cup final"] },
];
const version = {
  version_id: 2,
  version: 2,
  at,
  by: "una",
  reason: "More for the trial.",
  is_retired: false,
};
const versions = [
  { ...version, difference: allowance },
  { ...version, version_id: 1, version: 1, reason: null, difference: null },
];
const read = <T,>(data: T): UseQueryResult<T, Error> =>
  ({ data, error: null, refetch: async () => undefined }) as unknown as UseQueryResult<T, Error>;

export const versionSection: SampleSection = {
  title: "Versions and runs",
  samples: [
    sample("DayRange", <DayRange from="2026-11-01" to="2026-11-30" onChange={() => undefined} />),
    sample("DifferenceView", <DifferenceView difference={allowance} />),
    sample(
      "OlderPages, VersionPage and VersionLine",
      <OlderPages>
        {(before, onMore) => (
          <VersionPage
            key={before}
            query={read({ changes: versions, has_more: true })}
            before={before}
            onMore={onMore}
            nothing="Nothing was changed yet"
          >
            {(change) => (
              <VersionLine key={change.version_id} change={change}>
                <Button size="compact-xs">Return to this</Button>
              </VersionLine>
            )}
          </VersionPage>
        )}
      </OlderPages>,
    ),
    sample(
      "VersionList, VersionHead and StepLine",
      <VersionList label="Steps">
        <li>
          <VersionHead>
            <b>Una Example</b>
            <Tag tone="blue">proposed</Tag>
          </VersionHead>
        </li>
        <StepLine title="Pro" tone="amber" word="changed" difference={allowance} problems={[]} />
        <StepLine
          title="Spam"
          tone="red"
          word="wrong"
          difference={[]}
          problems={[
            { path: "conditions", message: "There is no such fact.", fix: "Choose one of the list." },
          ]}
        />
      </VersionList>,
    ),
    ...(["running", "cancelled", "failed"] as const).map((status) =>
      sample(
        `RunState, ${status}`,
        <RunState run={{ status, events: 1200, progress: 0.4, failure }} what="replay" />,
      ),
    ),
    sample(
      "ReasonForm",
      <ReasonForm
        label="Take over"
        className={undefined}
        disabled={false}
        onSubmit={() => Promise.resolve(true)}
      >
        Take over 3 prices
      </ReasonForm>,
    ),
  ],
};
