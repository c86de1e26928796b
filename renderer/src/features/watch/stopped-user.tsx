import { Button, Popover } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { type ActName, actNamed } from "../../../../shared/contract/acts.ts";
import type { Overview } from "../../../../shared/contract/watch.ts";
import { useCall } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { counted, reasonWords } from "../../lib/text.ts";
import { ActForm } from "../../ui/act-form.tsx";
import { NameAmong, SafeText, Tag, Tokens, UserName } from "../../ui/parts.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import css from "./watch.module.css";

type Stopped = Overview["most_stopped"][number];

const userActs: readonly ActName[] = ["unblock_user", "block_user", "unflag_user", "flag_user"];

/** A user who was stopped often: what can be done is behind the name. */
export function StoppedUser({
  stopped,
  others,
  onOnly,
}: {
  readonly stopped: Stopped;
  /** Who is listed with them. */
  readonly others: readonly Stopped[];
  readonly onOnly: () => void;
}): ReactNode {
  const [opened, setOpened] = useState(false);
  const { calls } = stopped;
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-end" trapFocus returnFocus withinPortal>
      <Popover.Target>
        <button
          type="button"
          className={css.ranked}
          aria-haspopup="dialog"
          title={`${counted(calls, "call")} stopped, mostly for ${reasonWords(stopped.reason)}`}
          onClick={() => setOpened(!opened)}
        >
          <NameAmong user={stopped} others={others} />
          <Tokens value={calls} compact />
        </button>
      </Popover.Target>
      <Popover.Dropdown>
        {opened ? <Acts stopped={stopped} onOnly={onOnly} onDone={() => setOpened(false)} /> : null}
      </Popover.Dropdown>
    </Popover>
  );
}

function Acts({
  stopped,
  onOnly,
  onDone,
}: {
  readonly stopped: Stopped;
  readonly onOnly: () => void;
  readonly onDone: () => void;
}): ReactNode {
  const [act, setAct] = useState<ActName | null>(null);
  const query = useCall("users.get", { user_id: stopped.user_id });
  return (
    <div className={css.acts}>
      <strong>
        <UserName name={stopped.display_name} id={stopped.user_id} />{" "}
        {stopped.is_blocked ? <Tag tone="red">blocked</Tag> : null}{" "}
        {stopped.is_flagged ? <Tag tone="amber">flagged</Tag> : null}
      </strong>
      <span className={css.quiet}>
        <SafeText text={stopped.user_id} length={80} />
      </span>
      <span className={css.quiet}>
        {formatTokens(stopped.calls)} stopped, mostly: <SafeText text={reasonWords(stopped.reason)} />
      </span>
      <QueryView query={query} skeleton={<Skeleton lines={2} />}>
        {({ account }) =>
          act === null ? (
            <div className={css.actRow}>
              <Button
                onClick={() => {
                  onOnly();
                  onDone();
                }}
              >
                Only this user
              </Button>
              <Button component="a" href={`#${placeAddress(["users", stopped.user_id])}`}>
                Open user
              </Button>
              {userActs
                .filter((each) => actNamed(each).isOffered(account))
                .map((each) => (
                  <Button key={each} onClick={() => setAct(each)}>
                    {actNamed(each).words.button}
                  </Button>
                ))}
            </div>
          ) : (
            <ActForm act={act} record={account} onDone={onDone} />
          )
        }
      </QueryView>
    </div>
  );
}
