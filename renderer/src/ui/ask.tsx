import { Button, Popover } from "@mantine/core";
import { type ReactNode, useState } from "react";
import css from "./ask.module.css";
import { TrashIcon } from "./icons.tsx";

/** A button that asks, in its place, before it removes something. */
export function RemoveButton({
  label,
  name,
  variant = "default",
  children,
  onRemove,
}: {
  readonly label: string;
  /** What is removed, for those who do not see where the button is. */
  readonly name: string;
  readonly variant?: "default" | "subtle";
  /** The question, and what else there is to choose. */
  readonly children: ReactNode;
  readonly onRemove: () => void;
}): ReactNode {
  const [isAsking, setAsking] = useState(false);
  return (
    <Popover opened={isAsking} onChange={setAsking} position="bottom-end" trapFocus>
      <Popover.Target>
        <Button
          variant={variant}
          leftSection={<TrashIcon size={14} />}
          aria-label={name}
          onClick={() => setAsking(true)}
        >
          {label}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <div className={css.ask}>
          {children}
          <div className={css.buttons}>
            <Button onClick={() => setAsking(false)}>Cancel</Button>
            <Button
              variant="filled"
              color="danger"
              onClick={() => {
                setAsking(false);
                onRemove();
              }}
            >
              Remove
            </Button>
          </div>
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}
