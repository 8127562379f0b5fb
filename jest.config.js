// One configuration for every kind of test; the Makefile selects folders.

// Ten minutes in two clusters of kubelets: `make e2e-csi` runs them.
const withClusters = process.env.LONGSHORE_CSI_CLUSTERS === "yes";

export default {
  testEnvironment: "<rootDir>/test/environment.js",
  testSequencer: "<rootDir>/test/longest-first.mjs",
  extensionsToTreatAsEsm: [".ts"],
  transform: { "\\.ts$": "<rootDir>/tools/strip-types.js" },
  cacheDirectory: "<rootDir>/.cache/jest",
  testMatch: ["**/*.test.ts"],
  modulePathIgnorePatterns: ["<rootDir>/.cache/"],
  testPathIgnorePatterns: ["/node_modules/", "/.cache/", ...(withClusters ? [] : ["/test/e2e/csi-clusters"])],
  testTimeout: 20_000,
};
