// The tables of the journal. Times are milliseconds since the epoch; JSON columns end in Json. `owner` is the storage key of
// a volume or migrated volume: a UUID that is never used again, so that a name made anew never meets old rows or files.

/** What version 1 made; what later versions add is in {@link upgrades}, so that old journals and new ones end up the same. */
const first = `
CREATE TABLE agent (id TEXT PRIMARY KEY, clusterUid TEXT NOT NULL) STRICT;

CREATE TABLE volumes (
  name TEXT PRIMARY KEY, uid TEXT NOT NULL UNIQUE, state TEXT NOT NULL CHECK (state IN ('creating','ready','deleting')),
  sizeBytes INTEGER NOT NULL, metadataJson TEXT NOT NULL, migrationEnabled INTEGER NOT NULL, createdAt INTEGER NOT NULL,
  generation INTEGER NOT NULL, lineageJson TEXT, problemJson TEXT, revision INTEGER NOT NULL) STRICT;

-- Sealed images: snapshots of volumes, and points in time of migrated volumes. An empty delta shares the file of its base.
CREATE TABLE points (
  owner TEXT NOT NULL, pointId TEXT NOT NULL, name TEXT, generation INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('creating','sealed','deleting','lost')),
  file TEXT NOT NULL, sizeBytes INTEGER NOT NULL, sourceTime INTEGER NOT NULL, committedAt INTEGER,
  inode TEXT, fsUuid TEXT, stallMs REAL NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0, verified TEXT,
  position INTEGER NOT NULL,
  PRIMARY KEY (owner, pointId)) STRICT;
CREATE UNIQUE INDEX pointNames ON points (owner, name) WHERE name IS NOT NULL;

CREATE TABLE holds (
  owner TEXT NOT NULL, pointId TEXT NOT NULL, reason TEXT NOT NULL CHECK (reason IN ('base','job','clone','user')),
  holder TEXT NOT NULL, since INTEGER NOT NULL,
  PRIMARY KEY (owner, pointId, reason, holder), FOREIGN KEY (owner, pointId) REFERENCES points (owner, pointId)) STRICT;

CREATE TABLE bases (
  owner TEXT NOT NULL, location TEXT NOT NULL, clusterUid TEXT NOT NULL, pointId TEXT NOT NULL, generation INTEGER NOT NULL,
  sourceTime INTEGER NOT NULL, movedAt INTEGER NOT NULL, PRIMARY KEY (owner, location)) STRICT;

CREATE TABLE locations (name TEXT PRIMARY KEY, specJson TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;

CREATE TABLE jobs (
  name TEXT PRIMARY KEY, specJson TEXT NOT NULL, owner TEXT NOT NULL, location TEXT NOT NULL, toId TEXT NOT NULL,
  fromJson TEXT, toJson TEXT NOT NULL, state TEXT NOT NULL, barrier TEXT NOT NULL, epoch INTEGER NOT NULL, nonce TEXT,
  attempts INTEGER NOT NULL, commitAsked INTEGER NOT NULL, modeJson TEXT, planDigest TEXT,
  bytesTotal INTEGER NOT NULL, bytesPunched INTEGER NOT NULL, bytesSent INTEGER NOT NULL, bytesStored INTEGER NOT NULL,
  unitsTotal INTEGER NOT NULL, unitsStored INTEGER NOT NULL, verified TEXT,
  createdAt INTEGER NOT NULL, startedAt INTEGER, finishedAt INTEGER, errorJson TEXT, revision INTEGER NOT NULL) STRICT;
CREATE INDEX unfinishedJobs ON jobs (owner, location) WHERE finishedAt IS NULL;

CREATE TABLE sources (
  name TEXT PRIMARY KEY, specJson TEXT NOT NULL, clusterUid TEXT, lastSeenAt INTEGER, revision INTEGER NOT NULL) STRICT;

-- The decider's row: term, staging and state of one migrated volume.
CREATE TABLE migrated (
  uid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL, clusterUid TEXT NOT NULL, clusterName TEXT NOT NULL,
  volumeUid TEXT NOT NULL, volumeName TEXT NOT NULL, metadataJson TEXT NOT NULL, sizeBytes INTEGER NOT NULL,
  deleting INTEGER NOT NULL DEFAULT 0, frozenSince INTEGER, diverged INTEGER NOT NULL DEFAULT 0, generationMax INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL, nonce TEXT NOT NULL, claimant TEXT NOT NULL, job TEXT NOT NULL, isTermLive INTEGER NOT NULL,
  revision INTEGER NOT NULL, UNIQUE (clusterUid, volumeUid)) STRICT;

CREATE TABLE staging (
  owner TEXT PRIMARY KEY, toId TEXT NOT NULL, baseId TEXT, planDigest TEXT NOT NULL, headerJson TEXT NOT NULL,
  isPlanned INTEGER NOT NULL, isMade INTEGER NOT NULL, sizeBytes INTEGER NOT NULL, touchedAt INTEGER NOT NULL) STRICT;
CREATE TABLE planPages (
  owner TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, unitsJson TEXT NOT NULL, PRIMARY KEY (owner, first)) STRICT;
CREATE TABLE storedUnits (
  owner TEXT NOT NULL, unit INTEGER NOT NULL, digest TEXT NOT NULL, verified TEXT NOT NULL, PRIMARY KEY (owner, unit)) STRICT, WITHOUT ROWID;

CREATE TABLE commits (
  owner TEXT NOT NULL, toId TEXT NOT NULL, job TEXT NOT NULL, epoch INTEGER NOT NULL, baseId TEXT, planDigest TEXT NOT NULL,
  committedAt INTEGER NOT NULL, PRIMARY KEY (owner, toId)) STRICT;

CREATE TABLE clones (
  name TEXT PRIMARY KEY, specJson TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('Waiting','Creating','Ready')),
  migrated TEXT NOT NULL, pointId TEXT, sourceTime INTEGER, volume TEXT, requestedAt INTEGER NOT NULL, askedAt INTEGER NOT NULL, servedAt INTEGER,
  revision INTEGER NOT NULL) STRICT;
CREATE INDEX clonesOf ON clones (migrated);
`;

// Several agents and groups. `points.groupPoint`: the id shared by the points of one group snapshot; `isValid` 0 until all
// of its members were thawed well. `jobs.parent`: the group's job that this volume's share belongs to; such rows are not shown
// as jobs. `jobs.shareJson`: on a group's job, what to move and who takes part (ShareSpec).
const groups = `
CREATE TABLE members (
  agentId TEXT PRIMARY KEY, node TEXT NOT NULL, address TEXT NOT NULL, laneAddress TEXT NOT NULL, incarnation INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('member','lost','forgotten'))) STRICT;
ALTER TABLE agent ADD COLUMN incarnation INTEGER NOT NULL DEFAULT 0;

-- Homes chosen for copies of which the home has perhaps not heard yet; kept by the member that places.
CREATE TABLE placements (
  clusterUid TEXT NOT NULL, volumeUid TEXT NOT NULL, agentId TEXT NOT NULL, PRIMARY KEY (clusterUid, volumeUid)) STRICT;

-- The decider's row of a group whose home this agent is, and its decisions. isReleased: every member has done what was
-- decided, so nobody asks for the record any more.
CREATE TABLE groups (
  uid TEXT PRIMARY KEY, clusterUid TEXT NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL, nonce TEXT NOT NULL,
  claimant TEXT NOT NULL, job TEXT NOT NULL, groupPoint TEXT NOT NULL, isTermLive INTEGER NOT NULL, revision INTEGER NOT NULL,
  UNIQUE (clusterUid, name)) STRICT;
CREATE TABLE groupCommits (
  groupUid TEXT NOT NULL, groupPoint TEXT NOT NULL, job TEXT NOT NULL, epoch INTEGER NOT NULL, membersJson TEXT NOT NULL,
  committedAt INTEGER NOT NULL, isReleased INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (groupUid, groupPoint)) STRICT;

-- A member's vote: from here on it is bound by the group home's decision.
CREATE TABLE votes (
  owner TEXT PRIMARY KEY, groupPoint TEXT NOT NULL, epoch INTEGER NOT NULL, requestJson TEXT NOT NULL, sealedJson TEXT NOT NULL) STRICT;

ALTER TABLE migrated ADD COLUMN groupName TEXT;
ALTER TABLE migrated ADD COLUMN groupHome TEXT;
ALTER TABLE commits ADD COLUMN groupPoint TEXT;
ALTER TABLE points ADD COLUMN groupName TEXT;
ALTER TABLE points ADD COLUMN groupPoint TEXT;
ALTER TABLE points ADD COLUMN isValid INTEGER NOT NULL DEFAULT 1;
CREATE INDEX groupPoints ON points (groupPoint) WHERE groupPoint IS NOT NULL;
ALTER TABLE jobs ADD COLUMN parent TEXT;
ALTER TABLE jobs ADD COLUMN shareJson TEXT;
ALTER TABLE jobs ADD COLUMN isPrepared INTEGER NOT NULL DEFAULT 0;
`;

// `jobs.targetJson`: the home of the copy, and what was heard of it last (HeardTarget), also when the job has ended.
const targets = `
ALTER TABLE jobs ADD COLUMN targetJson TEXT;
`;

// For what is asked every second, or at the end of each job, however long the history is.
const indexes = `
CREATE INDEX sharesOf ON jobs (parent) WHERE parent IS NOT NULL;
CREATE INDEX finishedJobs ON jobs (finishedAt) WHERE finishedAt IS NOT NULL;
CREATE INDEX unconfirmedPoints ON points (groupPoint) WHERE isValid = 0;
`;

// What the CSI driver needs. `volumes.originJson`: what a local clone is made of (Origin in local-clones.ts). `affinity`: of the
// own volume, of what has arrived, and of what was placed. `clones.isKept` 0: it goes by itself unless somebody asks for it again.
const csi = `
ALTER TABLE volumes ADD COLUMN originJson TEXT;
ALTER TABLE volumes ADD COLUMN affinity TEXT;
ALTER TABLE migrated ADD COLUMN affinity TEXT;
ALTER TABLE placements ADD COLUMN affinity TEXT;
ALTER TABLE clones ADD COLUMN isKept INTEGER NOT NULL DEFAULT 1;
CREATE INDEX unclaimedClones ON clones (servedAt) WHERE isKept = 0;
`;

// `jobs.heardJson`: what was heard of a group's job by the time it ended here (KeptHearsay of job-views.ts). A placement takes room
// until its copy is made, and is void when nobody has made it for long: one of an earlier version, counted from the upgrade.
// `groups.touchedAt`: when a group was last of use.
const remains = `
ALTER TABLE jobs ADD COLUMN heardJson TEXT;
ALTER TABLE placements ADD COLUMN sizeBytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE placements ADD COLUMN placedAt INTEGER NOT NULL DEFAULT 0;
UPDATE placements SET placedAt = unixepoch() * 1000;
ALTER TABLE groups ADD COLUMN touchedAt INTEGER NOT NULL DEFAULT 0;
`;

// Which agent has which name, as the others know it: each tells all its names once (then it is in `nameLists`), and claims new ones.
const names = `
CREATE TABLE volumeNames (
  name TEXT NOT NULL, agentId TEXT NOT NULL, uid TEXT NOT NULL, PRIMARY KEY (name, agentId)) STRICT, WITHOUT ROWID;
CREATE INDEX volumeNamesOf ON volumeNames (agentId);
CREATE TABLE nameLists (agentId TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
`;

// Whether an agent knows who else there is, as far as that can be known; see Members.isAcquainted. One that has met or has anything does.
const acquaintance = `
ALTER TABLE agent ADD COLUMN isAcquainted INTEGER NOT NULL DEFAULT 0;
UPDATE agent SET isAcquainted = 1
  WHERE EXISTS (SELECT 1 FROM members) OR EXISTS (SELECT 1 FROM volumes) OR EXISTS (SELECT 1 FROM migrated);
`;

/** One script for each version of the journal, in order; a journal is brought to the newest when it is opened. */
export const upgrades: readonly string[] = [first, groups, targets, indexes, csi, remains, names, acquaintance];
