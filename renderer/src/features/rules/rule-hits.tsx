import { Button } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { RuleCall, RuleHits } from "../../../../shared/contract/rules.ts";
import { useCall } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { cleanText, clip, counted, reasonWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { SafeText, Section, Tag, Time, Tokens, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import { VersionHead, VersionList } from "../../ui/versions.tsx";
import css from "./editor.module.css";

const hourMs = 3_600_000;

interface Hour {
  readonly from: number;
  readonly enforced: number;
  readonly shadow: number;
}

/** The last 48 hours, those without a hit too. */
function everyHour(hits: RuleHits): readonly Hour[] {
  const counts = new Map(hits.hours.map((each) => [Date.parse(each.hour), each]));
  const last = Math.floor(Date.parse(hits.now) / hourMs) * hourMs;
  return Array.from({ length: 48 }, (_, at) => {
    const from = last - (47 - at) * hourMs;
    return { from, enforced: counts.get(from)?.enforced ?? 0, shadow: counts.get(from)?.shadow ?? 0 };
  });
}

/** What a rule matched hour by hour, the calls behind each hour, and who was unblocked after it. */
export function RuleHitsView({ ruleName }: { readonly ruleName: string }): ReactNode {
  const query = useCall("rules.hits", { rule_name: ruleName }, { refetchMs: 10_000 });
  const [chosen, setChosen] = useState<number | null>(null);
  return (
    <QueryView query={query} skeleton={<Skeleton lines={5} />}>
      {(hits) => {
        const hours = everyHour(hits);
        const most = Math.max(1, ...hours.map((hour) => hour.enforced + hour.shadow));
        const sum = (key: "enforced" | "shadow"): number => hours.reduce((all, hour) => all + hour[key], 0);
        const now = Date.parse(hits.now);
        const range =
          chosen === null
            ? { from: now - 47 * hourMs, to: now + hourMs }
            : { from: chosen, to: chosen + hourMs };
        return (
          <>
            <Section
              title="Matches by hour, last 48 hours"
              aside={`${formatTokens(sum("enforced"))} enforced, ${formatTokens(sum("shadow"))} in shadow`}
            >
              <div className={css.bars} role="group" aria-label="Matches by hour">
                {hours.map((hour) => (
                  <button
                    key={hour.from}
                    type="button"
                    aria-pressed={chosen === hour.from}
                    aria-label={`${new Date(hour.from).toISOString().slice(11, 16)} UTC: ${counted(hour.enforced + hour.shadow, "match", "matches")}`}
                    title={`${new Date(hour.from).toISOString().slice(0, 16).replace("T", " ")} UTC: ${hour.enforced} enforced, ${hour.shadow} in shadow`}
                    onClick={() => setChosen(chosen === hour.from ? null : hour.from)}
                  >
                    <span className={css.shadow} style={{ height: `${(100 * hour.shadow) / most}%` }} />
                    <span className={css.enforced} style={{ height: `${(100 * hour.enforced) / most}%` }} />
                  </button>
                ))}
              </div>
            </Section>
            <Section
              title={chosen === null ? "The calls behind them" : "The calls of this hour"}
              aside={
                chosen === null ? null : (
                  <Button size="compact-xs" variant="subtle" onClick={() => setChosen(null)}>
                    All hours
                  </Button>
                )
              }
            >
              <Calls
                key={range.from}
                ruleName={ruleName}
                from={new Date(chosen ?? Math.floor(range.from / hourMs) * hourMs).toISOString()}
                to={new Date(
                  chosen === null ? Math.ceil(range.to / hourMs) * hourMs : range.to,
                ).toISOString()}
              />
            </Section>
            <Section title="Unblocked after it, last 7 days" aside={String(hits.unblocked.length)}>
              {hits.unblocked.length === 0 ? (
                <span className={css.quiet}>No operator lifted a block of this rule.</span>
              ) : (
                <VersionList>
                  {hits.unblocked.map((each) => (
                    <li key={`${each.user_id}${each.at}`}>
                      <VersionHead>
                        <a href={`#${placeAddress(["users", each.user_id])}`}>
                          <UserName name={null} id={each.user_id} />
                        </a>
                        <span className={css.quiet}>
                          <Time at={each.at} />
                          {each.by ? ` by ${clip(cleanText(each.by), 40)}` : ""}
                        </span>
                      </VersionHead>
                      {each.reason ? <SafeText text={each.reason} /> : null}
                    </li>
                  ))}
                </VersionList>
              )}
            </Section>
          </>
        );
      }}
    </QueryView>
  );
}

const columns: readonly Column<RuleCall>[] = [
  { id: "at", header: "When", width: 90, cell: (call) => <Time at={call.at} /> },
  {
    id: "user",
    header: "User",
    width: 120,
    grow: 1,
    cell: (call) => (
      <a href={`#${placeAddress(["users", call.user_id, "decisions"], { call: String(call.decision_id) })}`}>
        <UserName name={call.display_name} id={call.user_id} />
      </a>
    ),
  },
  {
    id: "decision",
    header: "Decision",
    width: 110,
    cell: (call) => (
      <Tag tone={call.mode === "shadow" ? "violet" : call.decision === "block" ? "red" : "green"}>
        {call.mode === "shadow"
          ? "shadow"
          : call.decision === "block"
            ? reasonWords(call.reason ?? "blocked")
            : call.decision}
      </Tag>
    ),
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 70,
    align: "right",
    cell: (call) => <Tokens value={call.tokens} />,
  },
];

function Calls({
  ruleName,
  from,
  to,
}: {
  readonly ruleName: string;
  readonly from: string;
  readonly to: string;
}): ReactNode {
  const query = useCall(
    "rules.calls",
    { rule_name: ruleName, from, to, before: null },
    { keepPrevious: true },
  );
  return (
    <QueryView query={query} skeleton={<Skeleton lines={4} />}>
      {({ calls, has_more }) => (
        <>
          <PlainTable
            label="Calls that matched"
            columns={columns}
            rows={calls}
            rowKey={(call) => String(call.decision_id)}
            empty="No call matched in this time."
          />
          {has_more ? <span className={css.quiet}>The newest {calls.length} are shown.</span> : null}
        </>
      )}
    </QueryView>
  );
}
