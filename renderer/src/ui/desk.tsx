import type { ReactNode } from "react";
import css from "./desk.module.css";

/** The head of a desk: its name and its tools, in one line. */
export function DeskBar({
  title,
  children,
}: {
  readonly title: ReactNode;
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <div className={css.bar}>
      {title === "" ? null : <h1>{title}</h1>}
      {children}
    </div>
  );
}

export function Grow(): ReactNode {
  return <span className={css.grow} />;
}
