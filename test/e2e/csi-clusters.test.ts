// Longshore as its users have it: in two Kubernetes clusters with real pods, installed from manifests/ with the image as it is,
// and looked at through kubectl. The clusters are of kubelets on this machine; with SOURCE_KUBECONFIG and TARGET_KUBECONFIG the same
// scenarios run in any two others (`make e2e-kind`, docs/testing-clusters.md). One pair serves all of them.
import { afterAll, beforeAll, test as check, describe } from "@jest/globals";
import { missing, needs } from "../needs.ts";
import { whatIsInUseIsEnabledByAnnotation } from "./csi/attic.ts";
import { databaseComesUpFromAClone, openBank } from "./csi/bank.ts";
import { aHundredClaimsAtOnceAreBound, aWrongParameterIsNamed } from "./csi/crowd.ts";
import { clonesOfSeveralVolumesInOnePod, growsWhileMountedAndMigrates, snapshotsAndCopiesAtHome } from "./csi/dock.ts";
import { aBackupToolIsToldWhatToRead, aGroupIsSnapshottedAtOneMoment } from "./csi/fleet.ts";
import { everyRightIsUsed, isTakenOutAndLeavesTheData } from "./csi/leaving.ts";
import { aPodWritesOnWhateverEnds } from "./csi/steady.ts";
import { whatATenantDeletesIsPublishedAnew, whatIsForgedShowsNothing, whoMayNotOptOutStaysIn } from "./csi/tenants.ts";
import {
  aClaimIsDeletedInTheMiddleOfAMigration,
  jobsBackToBackStarveNobody,
  manyWaitForTheThaw,
  tideMsMax,
} from "./csi/tide.ts";
import { givenKubeconfigs, openWorld, type World } from "./csi/world.ts";

const isGiven = givenKubeconfigs() !== undefined;
const openMsMax = 1_800_000;
const testMsMax = 900_000;

type Scenario = (world: World) => Promise<void>;

describe("two clusters that Longshore is installed in", () => {
  let world: World;

  /** Runs where the clusters are given, or where this machine can have its own. */
  const test = (name: string, scenario: Scenario, timeoutMs = testMsMax) => {
    const run = () => scenario(world);
    if (isGiven) check(name, run, timeoutMs);
    else needs("kubelets")(name, run, timeoutMs);
  };

  /** What only clusters of the tests' own let anybody see. */
  const testOfOwn = (name: string, scenario: Scenario) => {
    if (isGiven) check.skip(`${name} [needs clusters of the tests' own]`, () => scenario(world));
    else test(name, scenario);
  };

  beforeAll(async () => {
    if (!isGiven && missing("kubelets") !== undefined) return;
    world = await openWorld();
    await openBank(world);
  }, openMsMax);

  afterAll(async () => {
    world?.figures.report();
    await world?.close();
  }, testMsMax);

  test("a wrong parameter of a class is refused, and named in the claim's events", aWrongParameterIsNamed);

  test("a hundred claims that are made at once are all bound", aHundredClaimsAtOnceAreBound);

  test(
    "twenty claims wait for a frozen volume, see how far it is, and are bound when it thaws; one deleted leaves no clone",
    manyWaitForTheThaw,
    tideMsMax,
  );

  test("jobs back to back starve no claim that waits", jobsBackToBackStarveNobody);

  test(
    "a claim is deleted while its volume is migrated, and the volume goes with it",
    aClaimIsDeletedInTheMiddleOfAMigration,
  );

  test("a database that is written to is migrated, and comes up whole from a clone", databaseComesUpFromAClone);

  test(
    "volumes in use are enabled by an annotation, after a dry run, no more at once than the location takes",
    whatIsInUseIsEnabledByAnnotation,
  );

  test("a volume grows while it is mounted, and so does its copy", growsWhileMountedAndMigrates);

  test("two clones of one XFS and one of another volume are mounted in one pod", clonesOfSeveralVolumesInOnePod);

  test(
    "a user's snapshot and a schedule's are restored, and a claim is copied, where they are",
    snapshotsAndCopiesAtHome,
  );

  test(
    "claims of a label are snapshotted at one moment while a pod writes to them, and restored from the parts",
    aGroupIsSnapshottedAtOneMoment,
  );

  testOfOwn(
    "a backup tool is told what to read of a snapshot, and what has changed since another one",
    aBackupToolIsToldWhatToRead,
  );

  test("what a tenant deletes is published anew, and no point is lost", whatATenantDeletesIsPublishedAnew);

  test("a VolumeSnapshot forged onto another namespace's content shows nothing of it", whatIsForgedShowsNothing);

  test("a tenant who may not opt out stays in, and is told", whoMayNotOptOutStaysIn);

  test(
    "a pod writes on while programs are killed, pods deleted, kubelets restarted and the DaemonSet is rolled",
    aPodWritesOnWhateverEnds,
  );

  describe("in the end", () => {
    test("it is taken out, not while it is used, and the data stays", isTakenOutAndLeavesTheData, 2 * testMsMax);

    testOfOwn("every right that was granted has been used, and none was missing", everyRightIsUsed);
  });
});
