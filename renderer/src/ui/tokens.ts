/**
 * The only colours of the console. Both themes have the same names, and colour only ever means something: red stopped
 * or lost, amber warning or waiting, green settled, blue selected, violet shadow mode, grey retired. Every text colour
 * keeps 4.5:1 on every surface it is used on (tokens.test.ts).
 */
export interface Palette {
  /** Surfaces, from the back to the front. */
  readonly ground: string;
  readonly surface: string;
  readonly sunken: string;
  readonly raised: string;
  readonly hover: string;
  readonly selected: string;
  readonly line: string;
  readonly lineStrong: string;
  /** Texts. */
  readonly text: string;
  readonly muted: string;
  readonly faint: string;
  /** Tones, as text or sign; `…Soft` is the ground behind it, `…Mark` fills marks in charts and bars. */
  readonly red: string;
  readonly redSoft: string;
  readonly redMark: string;
  readonly amber: string;
  readonly amberSoft: string;
  readonly amberMark: string;
  readonly green: string;
  readonly greenSoft: string;
  readonly greenMark: string;
  readonly blue: string;
  readonly blueSoft: string;
  readonly blueMark: string;
  readonly violet: string;
  readonly violetSoft: string;
  readonly violetMark: string;
  readonly grey: string;
  readonly greySoft: string;
  readonly greyMark: string;
  /** Filled buttons and the production sign: `onFill` is the text on them. */
  readonly blueFill: string;
  readonly redFill: string;
  readonly onFill: string;
  readonly shadow: string;
}

export const light: Palette = {
  ground: "#f4f5f7",
  surface: "#ffffff",
  sunken: "#f8f9fa",
  raised: "#ffffff",
  hover: "#f1f4f8",
  selected: "#e4eefc",
  line: "#e2e5e9",
  lineStrong: "#c9ced6",
  text: "#191c20",
  muted: "#4d5560",
  faint: "#5f6874",
  red: "#b3261e",
  redSoft: "#fcebea",
  redMark: "#d9473f",
  amber: "#7d5100",
  amberSoft: "#fdf1d8",
  amberMark: "#dd9a1c",
  green: "#146c3d",
  greenSoft: "#e4f5ea",
  greenMark: "#35a469",
  blue: "#1a56c4",
  blueSoft: "#e4eefc",
  blueMark: "#4a86e8",
  violet: "#6639ba",
  violetSoft: "#f0e9fc",
  violetMark: "#8f68dc",
  grey: "#565e69",
  greySoft: "#eceef1",
  greyMark: "#9aa3ae",
  blueFill: "#1f5fd0",
  redFill: "#bf2c23",
  onFill: "#ffffff",
  shadow: "0 1px 2px rgb(15 23 42 / 6%), 0 8px 24px rgb(15 23 42 / 12%)",
};

export const dark: Palette = {
  ground: "#0e1013",
  surface: "#15181c",
  sunken: "#111417",
  raised: "#1c2025",
  hover: "#1d2228",
  selected: "#1b2c47",
  line: "#262b31",
  lineStrong: "#3a414a",
  text: "#e6e9ed",
  muted: "#a7b0bb",
  faint: "#98a2ae",
  red: "#ff8a80",
  redSoft: "#3a1d1c",
  redMark: "#e2574e",
  amber: "#ecb04f",
  amberSoft: "#352812",
  amberMark: "#d3962b",
  green: "#5fcf93",
  greenSoft: "#14301f",
  greenMark: "#3ba66d",
  blue: "#7fb0ff",
  blueSoft: "#1b2c47",
  blueMark: "#5b93ee",
  violet: "#bb9ff7",
  violetSoft: "#2a2145",
  violetMark: "#9575e0",
  grey: "#a7b0bb",
  greySoft: "#262b31",
  greyMark: "#707a86",
  blueFill: "#2f6fde",
  redFill: "#c93a31",
  onFill: "#ffffff",
  shadow: "0 1px 2px rgb(0 0 0 / 40%), 0 8px 28px rgb(0 0 0 / 50%)",
};
