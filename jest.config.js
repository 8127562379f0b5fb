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
  testTimeout: 60_000,
};
