/** What a call used, and a report of it. */

/** What a call really used. */
export interface Call {
  /** Read for the first time, and written to no cache. */
  readonly fresh: number;
  readonly cached: number;
  readonly written5m: number;
  readonly written1h: number;
  /** Read by tools in the provider's house: search, connectors, code. */
  readonly tools: number;
  readonly text: number;
  readonly thought: number;
}

/** A report, and what of the call can be read from it. */
export interface UsageReport {
  readonly convention: string;
  readonly response: unknown;
  readonly input: number;
  readonly output: number;
  readonly cached: number;
  readonly written: number;
  readonly written1h: number;
  readonly thought: number;
  /** Told in a place that stored history does not have. */
  readonly isLive: boolean;
}

type Told = Partial<Pick<UsageReport, "cached" | "written" | "written1h" | "thought" | "isLive">>;
/** How it is written, and what can be read of it. */
export type Written = readonly [response: unknown, input: number, output: number, told?: Told];
