// One configuration for every kind of test; the Makefile selects folders.

export default {
  testEnvironment: "<rootDir>/test/environment.js",
  testSequencer: "<rootDir>/test/longest-first.mjs",
  extensionsToTreatAsEsm: [".ts"],
  transform: { "\\.ts$": "<rootDir>/tools/strip-types.js" },
  cacheDirectory: "<rootDir>/.cache/jest",
  testMatch: ["**/*.test.ts"],
  modulePathIgnorePatterns: ["<rootDir>/.cache/"],
  testPathIgnorePatterns: ["/node_modules/", "/.cache/"],
  // Only ends what would never end by itself: on a machine that is very busy everything takes ten times as long.
  testTimeout: 180_000,
};
