/** One act on many users: whom it is for. */
import { Button, Modal, SegmentedControl } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { mostInBulk } from "../../../../shared/contract/bulk.ts";
import { toFailure, useCall } from "../../lib/console.tsx";
import { useWhyNot } from "../../lib/live.ts";
import { counted } from "../../lib/text.ts";
import { Note } from "../../ui/parts.tsx";
import { FailureLine, Skeleton } from "../../ui/states.tsx";
import { BulkForm } from "./bulk-form.tsx";
import type { UserSearch } from "./user-search.ts";
import css from "./bulk.module.css";

/** The button on the users desk: for the chosen rows, or for all that the list finds. */
export function CorrectMany({
  search,
  picked,
}: {
  readonly search: UserSearch;
  readonly picked: ReadonlySet<string>;
}): ReactNode {
  const whyNot = useWhyNot();
  const [opened, setOpened] = useState(false);
  return (
    <>
      <Button
        disabled={whyNot !== null}
        title={
          whyNot === null
            ? "Tokens, plans, limits, flags, blocks and notes of many users at once. Choose rows with x, or take all that the list finds."
            : whyNot
        }
        aria-haspopup="dialog"
        variant={picked.size > 0 ? "filled" : "default"}
        onClick={() => setOpened(true)}
      >
        {picked.size > 0 ? `Correct ${counted(picked.size, "user")}…` : "Correct many…"}
      </Button>
      {opened ? <BulkDialog search={search} picked={picked} onClose={() => setOpened(false)} /> : null}
    </>
  );
}

function BulkDialog({
  search: { searched, filter, planId, since, isNarrowed },
  picked,
  onClose,
}: {
  readonly search: UserSearch;
  readonly picked: ReadonlySet<string>;
  readonly onClose: () => void;
}): ReactNode {
  const [whom, setWhom] = useState<"picked" | "all">(picked.size > 0 ? "picked" : "all");
  // The users are fixed when the dialog opens: what is looked at is what is done.
  const [chosen] = useState(() => [...picked]);
  const all = useCall(
    "bulk.choose",
    { query: searched, filter, plan_id: planId || null, active_since: since },
    { enabled: whom === "all", staleMs: Number.POSITIVE_INFINITY },
  );
  const ids = whom === "picked" ? chosen : (all.data?.user_ids ?? []);
  return (
    <Modal opened onClose={onClose} title="Correct many users" size={620}>
      <div className={css.dialog}>
        <SegmentedControl
          aria-label="Whom"
          data={[
            { value: "picked", label: `Chosen rows (${chosen.length})`, disabled: chosen.length === 0 },
            {
              value: "all",
              label: `${isNarrowed ? "All that the list finds" : "Everybody"}${all.data ? ` (${all.data.user_ids.length.toLocaleString("en")}${all.data.is_cut ? "+" : ""})` : ""}`,
            },
          ]}
          value={whom}
          onChange={(value) => setWhom(value as "picked" | "all")}
        />
        {whom === "all" && all.error ? <FailureLine failure={toFailure(all.error)} /> : null}
        {whom === "all" && all.isLoading ? <Skeleton lines={4} /> : null}
        {whom === "all" && all.data?.is_cut ? (
          <Note tone="amber">
            More than {mostInBulk.toLocaleString("en")} users fit. Narrow the list: so many go into one act.
          </Note>
        ) : ids.length > 0 ? (
          <BulkForm key={whom} ids={ids} onClose={onClose} />
        ) : whom === "all" && all.data ? (
          <Note tone="grey">Nobody fits.</Note>
        ) : null}
      </div>
    </Modal>
  );
}
