// Who we are and whom we trust, as certificates: read from files, read again when the files change.
import { createPrivateKey, type X509Certificate } from "node:crypto";
import { type FSWatcher, watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type Clock, systemClock } from "../base/clock.ts";
import { type Log, silentLog } from "../base/log.ts";
import { taskGroup } from "../base/task-group.ts";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { describe, LongshoreError } from "../domain/errors.ts";
import { type Identity, identityOf } from "../domain/identity.ts";

export type { Identity, Role } from "../domain/identity.ts";

export interface Credentials {
  readonly identity: Identity;
  /** PEM texts as of now. */
  current(): CredentialPems;
  /** Calls back after the files changed and the new content is in force. Returns the unsubscriber. */
  onChange(listener: () => void): () => void;
  close(): void;
}

export interface CredentialPems {
  /** Our certificate, and intermediates after it. */
  readonly cert: string;
  readonly key: string;
  /** The bundle of our own cluster's CA. */
  readonly ca: string;
}

export interface CredentialFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string;
}

/** Files may lie on file systems that tell nobody of changes. */
const rereadMs = 30_000;

/**
 * Reads the three files, and again whenever one of their folders changes, and every 30 seconds. A set that does not fit
 * together (half-written, of another cluster or role, not of the CA) is not taken in: `BadRequest` here, and later a line in
 * the log while the last good set stays in force. An expired certificate is taken: the others judge it.
 */
export async function openCredentials(
  files: CredentialFiles,
  { clock = systemClock, log = silentLog }: { clock?: Clock; log?: Log } = {},
): Promise<Credentials> {
  let { pems, identity } = await readSet(files);
  const listeners = new Set<() => void>();
  let lastProblem = "";

  async function reread(): Promise<void> {
    try {
      const next = await readSet(files);
      checkSame(identity, next.identity, files.certFile);
      lastProblem = "";
      if (isSame(pems, next.pems)) return;
      pems = next.pems;
      log.info({ certFile: files.certFile }, "credentials changed");
      for (const listener of [...listeners]) listener();
    } catch (error) {
      // Half-written sets are usual for a moment; the same complaint again and again helps nobody.
      if (describe(error) !== lastProblem) log.warn({ err: error }, "credentials not taken in");
      lastProblem = describe(error);
    }
  }

  const stopWatching = watchFiles(files, reread, { clock, log });
  return {
    identity,
    current: () => pems,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      listeners.clear();
      stopWatching();
    },
  };
}

function watchFiles(
  files: CredentialFiles,
  reread: () => Promise<void>,
  { clock, log }: { clock: Clock; log: Log },
): () => void {
  const tasks = taskGroup(log);
  let isWanted = false;
  let isReading = false;
  // One reading at a time, and one more when something changed during it.
  async function readWhileWanted(): Promise<void> {
    if (isReading) return;
    isReading = true;
    while (isWanted && !tasks.signal.aborted) {
      isWanted = false;
      await reread();
    }
    isReading = false;
  }
  const changed = () => {
    isWanted = true;
    tasks.spawn("credentials reread", readWhileWanted);
  };
  const watchers = watchFolders(files, changed, log);
  tasks.spawn("credentials poll", async (signal) => {
    for (;;) {
      await clock.sleep(rereadMs, signal);
      changed();
    }
  });
  return () => {
    for (const watcher of watchers) watcher.close();
    void tasks.close();
  };
}

/** The folders, not the files: a mounted Secret is changed by swapping a link beside them. */
function watchFolders({ certFile, keyFile, caFile }: CredentialFiles, changed: () => void, log: Log): FSWatcher[] {
  const folders = new Set([certFile, keyFile, caFile].map((file) => dirname(file)));
  const complain = (error: unknown, folder: string) =>
    log.warn({ err: error, folder }, "credentials folder not watched, reading on a timer");
  return [...folders].flatMap((folder) => {
    try {
      const watcher = watch(folder, { persistent: false }, changed);
      return [watcher.on("error", (error) => complain(error, folder))];
    } catch (error) {
      // Nodes run out of inotify watches; the timer sees the change too, only later.
      complain(error, folder);
      return [];
    }
  });
}

async function readSet(files: CredentialFiles): Promise<{ pems: CredentialPems; identity: Identity }> {
  const [cert, key, ca] = await Promise.all([files.certFile, files.keyFile, files.caFile].map(textOf));
  const pems = { cert: cert ?? "", key: key ?? "", ca: ca ?? "" };
  const chain = parseCertificates(pems.cert, files.certFile);
  const bundle = parseCertificates(pems.ca, files.caFile);
  const leaf = chain[0] as X509Certificate;
  checkKey(leaf, pems.key, files);
  const identity = identityOf(leaf);
  if (identity === undefined)
    throw new LongshoreError("BadRequest", `${files.certFile} carries no URI name longshore://cluster/<uid>/<role>`);
  // Judged at the moment it began to be valid: whether it still is, is for those who are shown it.
  const verdict = judgeChain(chain, bundle, leaf.validFromDate.getTime());
  if (verdict.kind === "refused")
    throw new LongshoreError("BadRequest", `${files.certFile} does not fit ${files.caFile}: ${verdict.reason}`);
  return { pems, identity };
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new LongshoreError("BadRequest", `cannot read ${file}`, { cause });
  }
}

function checkKey(leaf: X509Certificate, key: string, files: CredentialFiles): void {
  let fits: boolean;
  try {
    fits = leaf.checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw new LongshoreError("BadRequest", `${files.keyFile} holds no private key that can be read`, { cause });
  }
  if (!fits) throw new LongshoreError("BadRequest", `${files.keyFile} is not the key of ${files.certFile}`);
}

function checkSame(before: Identity, after: Identity, certFile: string): void {
  if (before.clusterUid === after.clusterUid && before.role === after.role) return;
  const names = [before, after].map(({ clusterUid, role }) => `${role} of cluster ${clusterUid}`);
  throw new LongshoreError("BadRequest", `${certFile} changed from ${names[0]} to ${names[1]}; restart for that`);
}

function isSame(left: CredentialPems, right: CredentialPems): boolean {
  return left.cert === right.cert && left.key === right.key && left.ca === right.ca;
}
