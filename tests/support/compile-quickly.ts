/**
 * A flag of Node for tests that start local projects: each lives for seconds, and to compile PGlite for long work takes
 * three seconds of processor time, more than the work.
 */
export const compileQuickly = "--liftoff-only";
