import type { ComponentPropsWithRef, MouseEvent, ReactNode } from "react";

/**
 * The element of every Button. While it waits for an answer it takes no press, but keeps the focus: a button that is
 * disabled under the person's hand drops it to the page, where Escape closes what they are working in.
 */
export function BusyButton({
  disabled,
  onClick,
  type = "button",
  ...props
}: ComponentPropsWithRef<"button">): ReactNode {
  const isBusy = Boolean((props as { readonly "data-loading"?: unknown })["data-loading"]);
  const refuse = (event: MouseEvent): void => {
    event.preventDefault();
    event.stopPropagation();
  };
  return isBusy ? (
    // oxlint-disable-next-line react/button-has-type -- the form says it
    <button {...props} type={type} aria-disabled onClick={refuse} />
  ) : (
    // oxlint-disable-next-line react/button-has-type -- the form says it
    <button {...props} type={type} disabled={disabled} onClick={onClick} />
  );
}
