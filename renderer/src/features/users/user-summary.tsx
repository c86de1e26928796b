/** Who a user is, and what is left of their tokens and limits. */
import type { ReactNode } from "react";
import type { AccountDetail, Balance, Lot } from "../../../../shared/contract/users.ts";
import { userLanguageName, userLanguageOf } from "../../../../shared/governance/rules/index.ts";
import { useNow } from "../../lib/clock.ts";
import {
  formatDuration,
  formatInstant,
  formatShortInstant,
  formatTokens,
  viewerZone,
} from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { linkHere } from "../../lib/live.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { CopyButton, Cost, Id, Meter, SafeText, Time, Tokens } from "../../ui/parts.tsx";
import { AllowanceForecast } from "./allowance-forecast.tsx";
import css from "./users.module.css";

export function Identity({ detail }: { readonly detail: AccountDetail }): ReactNode {
  const { account, plan, preferences } = detail;
  const off = Object.entries(preferences?.messages ?? {})
    .filter(([, isOn]) => !isOn)
    .map(([topic]) => codeWords(topic));
  return (
    <div className={css.identity}>
      <span>
        id <Id value={account.user_id} head={18} tail={6} />
      </span>
      {account.email ? (
        <span>
          <b>
            <SafeText text={account.email} length={60} />
          </b>
          <CopyButton text={account.email} label="Copy the e-mail address" />
        </span>
      ) : null}
      <span>
        plan <b>{clip(cleanText(plan.name || plan.plan_id), 40)}</b>
      </span>
      <span>
        lives in <b>{clip(cleanText(account.timezone), 40)}</b>
      </span>
      {preferences ? (
        <span>
          reads <b>{userLanguageName(userLanguageOf(preferences.language))}</b>
          {off.length > 0 ? (
            <>
              , no mails about <b>{off.join(", ")}</b>
            </>
          ) : null}
        </span>
      ) : null}
      <span>
        since{" "}
        <b>
          <Time at={account.created_at} form="short" />
        </b>
      </span>
      <span>
        last active{" "}
        <b>
          <Time at={detail.last_activity} />
        </b>
      </span>
      <span>
        link{" "}
        <CopyButton
          text={() => linkHere(placeAddress(["users", account.user_id]))}
          label="Copy the link to this user"
        />
      </span>
    </div>
  );
}

const balanceKinds: readonly {
  readonly key: "subscription" | "purchased" | "promotional";
  readonly color: string;
}[] = [
  { key: "subscription", color: "var(--c-blue-mark)" },
  { key: "purchased", color: "var(--c-green-mark)" },
  { key: "promotional", color: "var(--c-grey-mark)" },
];

/** The tokens of one kind that go first, and when; null where none of them expire. */
function nextExpiry(
  lots: readonly Lot[],
  kind: Lot["kind"],
): { readonly at: string; readonly tokens: number } | null {
  const ending = lots
    .filter((lot) => lot.kind === kind && lot.remaining > 0 && lot.expires_at !== null)
    .sort((a, b) => Date.parse(a.expires_at ?? "") - Date.parse(b.expires_at ?? ""));
  const at = ending[0]?.expires_at;
  if (!at) return null;
  const tokens = ending.filter((lot) => lot.expires_at === at).reduce((sum, lot) => sum + lot.remaining, 0);
  return { at, tokens };
}

function BalanceCard({
  balance,
  lots,
  zone,
}: {
  readonly balance: Balance;
  readonly lots: readonly Lot[];
  readonly zone: string;
}): ReactNode {
  const now = useNow(60_000);
  const total = Math.max(1, balance.total);
  return (
    <div>
      <h2>Balance</h2>
      <div>
        <span className={css.big}>
          <Tokens value={balance.available} />
        </span>{" "}
        <span className={css.quiet}>
          tokens free
          {balance.reserved > 0 ? (
            <>
              , <Tokens value={balance.reserved} /> held
            </>
          ) : null}
        </span>
      </div>
      <div className={css.stack} aria-hidden="true">
        {balanceKinds.map(({ key, color }) =>
          balance[key] > 0 ? (
            <span key={key} style={{ width: `${(100 * balance[key]) / total}%`, background: color }} />
          ) : null,
        )}
      </div>
      <div className={css.kinds}>
        {balanceKinds.map(({ key, color }) => {
          const next = nextExpiry(lots, key);
          return (
            <div key={key}>
              <i style={{ background: color }} />
              <span>
                {codeWords(key)}
                {next ? (
                  <span className={css.quiet} title={formatInstant(next.at, zone)}>
                    , {next.tokens < balance[key] ? `${formatTokens(next.tokens)} expire` : "expire"} in{" "}
                    {formatDuration(Date.parse(next.at) - now)}
                  </span>
                ) : null}
              </span>
              <span>
                <Tokens value={balance[key]} />
              </span>
            </div>
          );
        })}
      </div>
    </div>
  );
}

function LimitLine({
  name,
  window,
  zone,
}: {
  readonly name: string;
  readonly window: AccountDetail["limits"]["daily"];
  readonly zone: string;
}): ReactNode {
  const now = useNow(1000);
  const percent =
    window.limit === null ? null : window.limit === 0 ? 100 : Math.floor((100 * window.used) / window.limit);
  return (
    <div className={css.limit}>
      <div>
        <span>{name}</span>
        <span>
          <Tokens value={window.used} />
          {window.limit === null ? (
            <span className={css.quiet}> used, no limit</span>
          ) : (
            <span className={css.quiet}>
              {" "}
              of <Tokens value={window.limit} />
            </span>
          )}
        </span>
      </div>
      {percent === null ? null : <Meter percent={percent} label={`${name} used`} />}
      <span className={css.quiet} title={formatInstant(window.resets_at, zone)}>
        {window.remaining === null ? null : (
          <>
            <Tokens value={window.remaining} /> left,{" "}
          </>
        )}
        resets in {formatDuration(Date.parse(window.resets_at) - now)}:{" "}
        {formatShortInstant(window.resets_at, zone, now)} {zone}
        {zone === viewerZone() ? "" : `, ${formatShortInstant(window.resets_at, viewerZone(), now)} for you`}
      </span>
    </div>
  );
}

function RaisedLine({
  until,
  zone,
}: {
  readonly until: string | null | undefined;
  readonly zone: string;
}): ReactNode {
  return until ? (
    <span className={css.quiet}>
      Raised by an operator until {formatInstant(until, zone)}; then the plan’s again.
    </span>
  ) : null;
}

export function Summary({ detail }: { readonly detail: AccountDetail }): ReactNode {
  return (
    <div className={css.summary}>
      <BalanceCard balance={detail.balance} lots={detail.lots} zone={detail.account.timezone} />
      <div>
        <h2>Limits</h2>
        <LimitLine name="Today" window={detail.limits.daily} zone={detail.account.timezone} />
        <RaisedLine until={detail.account.raised?.daily_until} zone={detail.account.timezone} />
        <LimitLine name="This month" window={detail.limits.monthly} zone={detail.account.timezone} />
        <RaisedLine until={detail.account.raised?.monthly_until} zone={detail.account.timezone} />
        {detail.account.next_plan ? (
          <span className={css.quiet}>
            Moves to {clip(cleanText(detail.account.next_plan.name), 40)} on{" "}
            {formatInstant(detail.account.next_plan.at, detail.account.timezone)}. To cancel: Acts, Undo.
          </span>
        ) : null}
      </div>
      <div>
        <h2>Use</h2>
        <div>
          <span className={css.big}>
            <Cost micros={detail.cost_this_month_micros} currency={detail.currency} />
          </span>{" "}
          <span className={css.quiet}>this month</span>
        </div>
        <div>
          <Cost micros={detail.cost_today_micros} currency={detail.currency} />{" "}
          <span className={css.quiet}>today</span>
        </div>
        <div>
          {counted(detail.messages_today, "message")} <span className={css.quiet}>today</span>
        </div>
        <div>
          <Tokens value={detail.plan.monthly_allowance} />{" "}
          <span className={css.quiet}>tokens a month in the plan</span>
        </div>
        <AllowanceForecast detail={detail} />
      </div>
    </div>
  );
}
