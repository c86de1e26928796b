import { describe, expect, it } from "vitest";
import { navigate, parsePlace, placeAddress, startRouter, currentPlace } from "./router.ts";

describe("addresses", () => {
  it("carry any id there and back", () => {
    for (const id of ["sample-1", "a/b?c#d", "naïve 名前", "%", "..", "x\u202ey"]) {
      expect(parsePlace(`#${placeAddress(["users", id, "ledger"])}`).parts).toEqual(["users", id, "ledger"]);
    }
  });
  it("carry a query, without what is not set", () => {
    const place = parsePlace(`#${placeAddress(["finance"], { class: "FX_ROUNDING", find: null })}`);
    expect(place.query.get("class")).toBe("FX_ROUNDING");
    expect(place.query.has("find")).toBe(false);
  });
  it("survive a broken escape and half a surrogate", () => {
    expect(parsePlace("#/users/%E0%A4%A").parts).toEqual(["users", "%E0%A4%A"]);
    expect(placeAddress(["users", "\ud800"])).toBe("/users/%EF%BF%BD");
  });
  it("go home from an address that is not ours", () => {
    expect(parsePlace("#token=secret").parts).toEqual(["watch"]);
  });
});

it("goes back to the last place, and never remembers a token", () => {
  history.replaceState(null, "", "#/watch");
  startRouter();
  navigate("/users/42/ledger");
  expect(currentPlace().parts).toEqual(["users", "42", "ledger"]);
  expect(localStorage.getItem("console.place")).toBe('"/users/42/ledger"');
  history.replaceState(null, "", "#token=secret");
  window.dispatchEvent(new HashChangeEvent("hashchange"));
  expect(localStorage.getItem("console.place")).not.toContain("secret");
});
