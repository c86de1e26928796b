import { fireEvent, screen } from "@testing-library/react";
import { type ReactNode, useState } from "react";
import { describe, expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { AmountChips } from "./amount-chips.tsx";
import { type Amount, AmountInput, readAmount } from "./amount-input.tsx";

const read = (typed: string) => readAmount(typed, 1, Number.MAX_SAFE_INTEGER);

describe("an amount", () => {
  it("is what was typed or pasted, with spaces and groups", () => {
    for (const typed of ["5000", "5,000", " 5 000 ", "5\u202f000", "+5,000", "5_000", "\u200e5000", "5000\n"])
      expect([typed, read(typed).value]).toEqual([typed, 5_000]);
  });

  it("is refused where it could be another number, instead of losing its signs", () => {
    // A field that drops what it does not know makes of these 19, 15, 1, 10, 1 and 50,000.
    for (const typed of ["1e9", "1,5", "1.000", "10k", "1.5", "5,0000", "abc", "９", "0x10", "5-", "--5"])
      expect([typed, read(typed)]).toEqual([
        typed,
        { value: undefined, error: "Write a whole number, like 12,000." },
      ]);
  });

  it("says what is too little and what is too much", () => {
    expect(read("-1").error).toBe("At least 1.");
    expect(read("0").error).toBe("At least 1.");
    expect(read("9007199254740993").error).toBe("At most 9,007,199,254,740,991.");
    expect(readAmount("−250", -1000, 1000)).toEqual({ value: -250, error: null });
  });
});

function Field({ changed }: { readonly changed: (value: Amount) => void }): ReactNode {
  const [value, setValue] = useState<Amount>(null);
  const change = (next: Amount): void => {
    setValue(next);
    changed(next);
  };
  return (
    <>
      <AmountInput label="Tokens" min={1} value={value} onChange={change} />
      <AmountChips tokens={value ?? null} onPick={change} />
    </>
  );
}

it("what cannot be read stays as it was typed, with what is wrong, and is no amount", () => {
  const said: Amount[] = [];
  show(answering({}), <Field changed={(value) => said.push(value)} />);
  const field = screen.getByRole<HTMLInputElement>("textbox", { name: "Tokens" });
  fireEvent.change(field, { target: { value: "1,5" } });
  fireEvent.blur(field);
  expect(field.value).toBe("1,5");
  expect(field.getAttribute("aria-invalid")).toBe("true");
  expect(screen.getByText("Write a whole number, like 12,000.")).toBeTruthy();

  fireEvent.click(screen.getByRole("button", { name: "10,000" }));
  expect(field.value).toBe("10,000");
  expect(screen.queryByText("Write a whole number, like 12,000.")).toBeNull();

  fireEvent.change(field, { target: { value: "2500" } });
  expect(field.value).toBe("2500");
  fireEvent.blur(field);
  expect(field.value).toBe("2,500");
  fireEvent.change(field, { target: { value: "" } });
  expect(said).toEqual([undefined, 10_000, 2_500, null]);
});
