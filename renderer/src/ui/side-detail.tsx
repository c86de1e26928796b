import { ActionIcon } from "@mantine/core";
import { type ReactNode, useRef } from "react";
import { useKeys } from "../lib/keys.ts";
import { isNumber, useRemembered } from "../lib/remember.ts";
import { CloseIcon } from "./icons.tsx";
import css from "./side-detail.module.css";

const isNumberOrNull = (value: unknown): value is number | null => value === null || isNumber(value);

/**
 * A list with its detail beside it. The divider can be dragged or moved with the arrow keys; its place is
 * remembered. Esc closes the detail.
 */
export function SideDetail({
  id,
  list,
  detail,
  detailLabel,
  onClose,
  initialWidth = 440,
  minWidth = 320,
  minListWidth = 320,
}: {
  readonly id: string;
  readonly list: ReactNode;
  /** null: closed. */
  readonly detail: ReactNode | null;
  readonly detailLabel: string;
  readonly onClose: () => void;
  readonly initialWidth?: number;
  readonly minWidth?: number;
  readonly minListWidth?: number;
}): ReactNode {
  // Null: nobody has dragged it. It takes its share of a large window, so that the list is not left half empty.
  const [width, setWidth] = useRemembered<number | null>(`detail.${id}`, null, isNumberOrNull);
  const box = useRef<HTMLDivElement>(null);
  useKeys({ Escape: () => onClose() }, detail !== null);
  const resize = (wanted: number): void => {
    const whole = box.current?.clientWidth ?? 1200;
    setWidth(Math.round(Math.max(minWidth, Math.min(whole - minListWidth, wanted))));
  };
  return (
    <div className={css.split} ref={box}>
      <div className={css.list}>{list}</div>
      {detail === null ? null : (
        <>
          <div
            className={css.divider}
            role="separator"
            aria-orientation="vertical"
            aria-label="Width of the detail"
            aria-valuenow={width ?? initialWidth}
            tabIndex={0}
            onPointerDown={(event) => {
              event.preventDefault();
              event.currentTarget.setPointerCapture(event.pointerId);
            }}
            onPointerMove={(event) => {
              if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
              const right = box.current?.getBoundingClientRect().right ?? 0;
              resize(right - event.clientX);
            }}
            onDoubleClick={() => setWidth(null)}
            onKeyDown={(event) => {
              const now = event.currentTarget.nextElementSibling?.clientWidth ?? initialWidth;
              if (event.key === "ArrowLeft") resize(now + 24);
              else if (event.key === "ArrowRight") resize(now - 24);
            }}
          />
          <aside
            className={css.detail}
            style={{
              width: `min(${width === null ? `max(${initialWidth}px, 44%)` : `${width}px`}, calc(100% - ${minListWidth}px))`,
            }}
            aria-label={detailLabel}
          >
            {detail}
          </aside>
        </>
      )}
    </div>
  );
}

/** The head of a detail: its title, what can be done, and the way back. */
export function DetailBar({
  title,
  children,
  onClose,
}: {
  readonly title: ReactNode;
  readonly children?: ReactNode;
  readonly onClose: () => void;
}): ReactNode {
  return (
    <div className={css.bar}>
      <h2>{title}</h2>
      <div className={css.barActs}>
        {children}
        <ActionIcon aria-label="Close" title="Close (Esc)" onClick={onClose}>
          <CloseIcon />
        </ActionIcon>
      </div>
    </div>
  );
}

export function DetailScroll({ children }: { readonly children: ReactNode }): ReactNode {
  return <div className={css.scroll}>{children}</div>;
}
