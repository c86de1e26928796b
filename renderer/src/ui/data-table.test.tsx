import { fireEvent, screen } from "@testing-library/react";
import { type ReactNode, useState } from "react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { type Column, DataTable } from "./data-table.tsx";

interface Row {
  readonly id: string;
}
const column = (id: string, hidden = false): Column<Row> => ({
  id,
  header: id,
  width: 80,
  hidden,
  cell: (row) => row.id,
});
const wide = [column("name"), column("plan"), column("zone"), column("debt", true)];
const narrow = [column("name")];

/** As the users' desk: one table, narrow beside a detail. */
function Desk(): ReactNode {
  const [isOpen, setOpen] = useState(true);
  return (
    <>
      <button type="button" onClick={() => setOpen(!isOpen)}>
        Close the detail
      </button>
      <DataTable
        id={isOpen ? "narrow" : "wide"}
        label="Users"
        columns={isOpen ? narrow : wide}
        rows={[{ id: "a" }]}
        rowKey={(row) => row.id}
        empty="none"
      />
    </>
  );
}

it("a table that goes on as another has that one's columns, and overwrites nobody's choice", () => {
  localStorage.setItem("console.table.wide.columns", JSON.stringify({ plan: false }));
  localStorage.setItem("console.table.narrow.widths", JSON.stringify({ name: 300 }));
  const heads = (): readonly (string | null)[] =>
    screen.getAllByRole("columnheader").map((each) => each.textContent);
  const kept = (key: string): unknown => JSON.parse(localStorage.getItem(`console.table.${key}`) ?? "null");
  // As after a link to one user.
  show(answering({}), <Desk />);
  expect(heads()).toEqual(["name"]);

  fireEvent.click(screen.getByRole("button", { name: "Close the detail" }));
  expect(heads()).toEqual(["name", "zone"]);
  expect(kept("wide.columns")).toEqual({ debt: false, plan: false });
  expect(kept("wide.widths")).toEqual({});
  expect(kept("narrow.widths")).toEqual({ name: 300 });
});
