/**
 * The names of operations.ts. The preload needs the names alone and must stay small: its build puts the two lists here
 * in place of this file (electron.vite.config.ts).
 */
import { type OperationName, operations, type StreamName, streams } from "./operations.ts";

export const operationNames = Object.keys(operations) as readonly OperationName[];
export const streamNames = Object.keys(streams) as readonly StreamName[];
