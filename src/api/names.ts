// Every name that users and other programs may meet: labels, annotations, finalizers, condition types and reasons, the
// reasons of Events. Once released, a name stays.

export const group = "longshore.dev";
export const version = "v1";
export const apiVersion = `${group}/${version}`;

/** The CSI driver whose volumes the agents keep. */
export const driverName = "csi.longshore.dev";

export const label = {
  managedBy: "app.kubernetes.io/managed-by",
  /** On jobs: the PersistentVolume, shortened. */
  volume: `${group}/volume`,
  location: `${group}/location`,
  source: `${group}/source`,
  /** On VolumeSnapshots and their contents: the MigratedVolume they publish, shortened. */
  migratedVolume: `${group}/migrated-volume`,
  /** On those of a pinned point: its id; of a group's, the one that all its volumes share. */
  point: `${group}/point`,
  /** On claims, by their users: those of one namespace with the same value are one consistency group. On jobs of a group as well. */
  group: `${group}/group`,
  /** On jobs of a group: the namespace of its claims. */
  groupNamespace: `${group}/group-namespace`,
} as const;

export const managedByLongshore = "longshore";

export const annotation = {
  /** On a MigrationLocation that is being deleted: "true" drops the holds that volumes have for it, knowingly. */
  releaseHolds: `${group}/release-holds`,
  /** On a StorageClass or a PersistentVolume: "true" shows what enabling migration would do, and does nothing of it. */
  dryRun: `${group}/dry-run`,
} as const;

export const finalizer = {
  location: `${group}/location`,
  job: `${group}/job`,
  source: `${group}/consent`,
  migratedVolume: `${group}/data`,
} as const;

/** The keys of a volume's metadata, which the agents carry to the target and never look into. */
export const metadataKey = {
  persistentVolume: "pv.name",
  claimNamespace: "pvc.namespace",
  claimName: "pvc.name",
  /** The claim's labels, as JSON. */
  claimLabels: "pvc.labels",
  volumeMode: "volumeMode",
  fileSystem: "fsType",
} as const;

export const conditionType = {
  ready: "Ready",
  /** MigrationLocation: an agent of the cluster answers. */
  reachable: "Reachable",
  /** MigrationLocation: what answers is of the CA bundle, and the cluster that was named. */
  trusted: "Trusted",
  /** MigrationLocation: the cluster has a MigrationSource for us. */
  consented: "Consented",
  /** MigrationLocation: its bandwidth is nought at the moment, whether or not it is ready. */
  paused: "Paused",
  /** MigrationLocation, MigrationSource: why it is not gone yet. */
  deletable: "Deletable",
  /** SnapshotSchedule: the retention is not shorter than the gaps between runs. */
  retentionCoversGaps: "RetentionCoversGaps",
  /** VolumeMigration: the settings of class, volume and claim make sense. */
  policyValid: "PolicyValid",
  /** VolumeMigration: the StorageClass of the volume does not exist (any more). */
  classMissing: "ClassMissing",
  /** VolumeMigration: the volumes of its consistency group do not agree; nothing of the group is snapshotted or migrated. */
  groupConflict: "GroupConflict",
  /** VolumeMigration: the agent that has the volume lost its data, as the others of its cluster see it. */
  homeLost: "HomeLost",
  /** VolumeMigration: the last snapshot that was due has been taken. */
  snapshotted: "Snapshotted",
  /** MigrationJob: it has ended well. */
  complete: "Complete",
  /** MigrationJob: it has ended otherwise. */
  failed: "Failed",
  suspended: "Suspended",
  /** MigrationJob, MigratedVolume: whether the target commits is decided by an agent that does not answer. */
  undecided: "Undecided",
  /** MigratedVolume: the newest point may be cloned now. */
  available: "Available",
  /** MigratedVolume: the newest point here is unknown to the source. */
  diverged: "Diverged",
  /** MigratedVolume: the VolumeSnapshot that a MigrationSource asks for is there. */
  published: "Published",
} as const;

export const reason = {
  ok: "Ok",
  agentUnreachable: "AgentUnreachable",
  applying: "Applying",
  // Locations
  notProbed: "NotProbed",
  unreachable: "Unreachable",
  untrusted: "Untrusted",
  notConsented: "NotConsented",
  suspended: "Suspended",
  paused: "Paused",
  inUse: "InUse",
  invalid: "Invalid",
  // Schedules
  invalidSchedule: "InvalidSchedule",
  invalidTimeZone: "InvalidTimeZone",
  retentionTooShort: "RetentionTooShort",
  // Volumes
  invalidPolicy: "InvalidPolicy",
  policyRefused: "PolicyRefused",
  classMissing: "ClassMissing",
  disabled: "Disabled",
  dryRun: "DryRun",
  scheduleMissing: "ScheduleMissing",
  scheduleInvalid: "ScheduleInvalid",
  locationMissing: "LocationMissing",
  locationNotReady: "LocationNotReady",
  volumeMissing: "VolumeMissing",
  unsupportedDriver: "UnsupportedDriver",
  snapshotFailed: "SnapshotFailed",
  snapshotLost: "SnapshotLost",
  jobFailed: "JobFailed",
  groupConflict: "GroupConflict",
  groupIncomplete: "GroupIncomplete",
  groupMember: "GroupMember",
  homeLost: "HomeLost",
  // Jobs
  waiting: "Waiting",
  succeeded: "Succeeded",
  planned: "Planned",
  cancelled: "Cancelled",
  deadlineExceeded: "DeadlineExceeded",
  undecided: "Undecided",
  // Migrated volumes
  empty: "Empty",
  frozen: "Frozen",
  missing: "Missing",
  notAsked: "NotAsked",
  nameConflict: "NameConflict",
  namespaceMissing: "NamespaceMissing",
  remaking: "Remaking",
  unknownPoint: "UnknownPoint",
} as const;

/** The reasons of Events. */
export const eventReason = {
  policyInvalid: "MigrationPolicyInvalid",
  policyRefused: "MigrationPolicyRefused",
  classMissing: "StorageClassMissing",
  scheduleMissing: "SnapshotScheduleMissing",
  scheduleInvalid: "SnapshotScheduleInvalid",
  retentionTooShort: "RetentionTooShort",
  locationMissing: "MigrationLocationMissing",
  unsupportedDriver: "UnsupportedDriver",
  volumeMissing: "VolumeMissing",
  snapshotFailed: "SnapshotFailed",
  snapshotLost: "SnapshotLost",
  runMissed: "SnapshotRunMissed",
  migrationStarted: "MigrationStarted",
  migrationSucceeded: "MigrationSucceeded",
  migrationFailed: "MigrationFailed",
  migrationCancelled: "MigrationCancelled",
  migrationUndecided: "MigrationUndecided",
  migrationDecided: "MigrationDecided",
  groupConflict: "MigrationGroupConflict",
  homeLost: "VolumeHomeLost",
  locationNotReady: "MigrationLocationNotReady",
  locationReady: "MigrationLocationReady",
  locationInUse: "MigrationLocationInUse",
  published: "Published",
  publicationFailed: "PublicationFailed",
  /** On a StorageClass: what a dry run of its volumes comes to. */
  dryRun: "MigrationDryRun",
  /** On a claim: its clone waits until a transfer commits; at the start, and at each quarter. */
  waitingForThaw: "WaitingForThaw",
  /** On a claim: its clone has been made. */
  thawed: "Thawed",
} as const;
