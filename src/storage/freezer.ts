// Holds the writers of live images up, so that a snapshot has the file systems on them in order, and so that the
// snapshots of several volumes are of one moment. Each freeze ends by a timer of its own, kept by another process; a freeze
// that this process does not live to end is ended by that one, or noted down and ended at the next start.

import * as fs from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Mount } from "../base/mount-table.ts";
import { errnoOf, unlessErrno } from "../base/system-error.ts";
import { describe, LongshoreError } from "../domain/errors.ts";
import { hasReadLease, releaseLease, takeReadLease, thawFileSystem } from "../native/file-calls.ts";
import type { FrozenVolume, Thaw } from "./backend.ts";
import { attempt } from "./failures.ts";
import { GuardError, GuardProcess, graceMs, type HeldByGuard } from "./guard-process.ts";
import { imageState, openImage } from "./image-file.ts";
import type { Layout } from "./layout.ts";
import {
  type Attachment,
  attachmentsOf,
  deviceHolding,
  mountsHere,
  openMount,
  writtenByThisProcess,
} from "./mounts.ts";

/** What is frozen, written down before it is, for whoever has to thaw it. */
interface FreezeNote {
  /** Nothing is frozen any more after the machine was started again. */
  readonly bootId: string;
  /** Device numbers of the file systems. */
  readonly devices: readonly string[];
}

interface Entry extends FrozenVolume {
  /** Whether, as far as is known, it has been frozen all the time. */
  isWhole(): boolean;
}

export class Freezer {
  private readonly layout: Layout;
  private readonly clock: Clock;
  private readonly entries = new Map<string, Entry>();
  /** Volumes whose freeze has begun. */
  private readonly taken = new Set<string>();
  private guard: { process: GuardProcess; users: number } | undefined;

  constructor(layout: Layout, clock: Clock) {
    this.layout = layout;
    this.clock = clock;
  }

  /** See StorageBackend.freeze. */
  async freeze(volume: string, timeoutMs: number): Promise<FrozenVolume> {
    if (this.taken.has(volume)) throw new LongshoreError("VolumeBusy", `volume ${volume} is frozen already`);
    this.taken.add(volume);
    try {
      const image = this.layout.live(volume);
      const state = await imageState(image);
      if (state !== "writable")
        throw new LongshoreError("VolumeGone", `the live image of volume ${volume} is ${state}`);
      const attachments = await attachmentsOf(image);
      // What could not be thawed when the agent started, because nobody had it mounted where it could be reached.
      await this.thawNoted(
        volume,
        attachments.flatMap(({ mounts }) => mounts),
      );
      // Through what is attached for reading nobody writes; who does so past it, the lease tells.
      const isWritten = attachments.some(({ isWritable }) => isWritable);
      const entry = isWritten
        ? await this.freezeMounts(volume, attachments, timeoutMs)
        : await this.lease(volume, timeoutMs);
      this.entries.set(volume, entry);
      return entry;
    } catch (error) {
      this.taken.delete(volume);
      throw error;
    }
  }

  /** For a volume whose writers are held up by its file system: throws as soon as it is known that they are not any more. */
  checkpoint(volume: string): (() => void) | undefined {
    const entry = this.entries.get(volume);
    if (!entry?.isMounted) return undefined;
    return () => {
      if (!entry.isWhole()) throw new LongshoreError("VolumeBusy", `volume ${volume} was thawed too early`);
    };
  }

  /** Thaws what an earlier process left frozen, if it could not do so itself. */
  async recover(): Promise<void> {
    const names = (await unlessErrno(["ENOENT"], () => fs.readdir(this.folder()))) ?? [];
    const mounts = await mountsHere();
    for (const name of names) await this.thawNoted(name, mounts);
  }

  /** Thaws what the note of a volume names, as far as it is mounted; the note stays for the rest, until the machine starts anew. */
  private async thawNoted(volume: string, mounts: readonly Mount[]): Promise<void> {
    const path = join(this.folder(), volume);
    const text = await unlessErrno(["ENOENT"], () => fs.readFile(path, "utf8"));
    if (text === undefined) return;
    const note = parseNote(text);
    const isOfThisBoot = note !== undefined && note.bootId === (await bootId());
    const left = isOfThisBoot ? await thawDevices(note.devices, mounts) : [];
    if (left.length === 0) await fs.rm(path, { force: true });
    else await fs.writeFile(path, JSON.stringify({ ...note, devices: left }));
  }

  async close(): Promise<void> {
    await Promise.all([...this.entries.values()].map((entry) => entry.thaw()));
  }

  private folder(): string {
    return join(this.layout.root, "frozen");
  }

  private forget(volume: string): void {
    this.entries.delete(volume);
    this.taken.delete(volume);
  }

  /** An image nobody has attached: the kernel holds up whoever wants to write to it, and tells us that somebody wanted to. */
  private async lease(volume: string, timeoutMs: number): Promise<Entry> {
    const image = await attempt(
      `open volume ${volume}`,
      () => openImage(this.layout.live(volume), "read"),
      "VolumeGone",
    );
    try {
      if (!isLeased(volume, image.fd)) throw attachedRaw(volume, "its image is open for writing");
    } catch (error) {
      await image.close();
      throw error;
    }
    const startedMs = this.clock.monotonicMs();
    const over = new AbortController();
    let ended: Thaw | undefined;
    const isWhole = () => ended === undefined && hasReadLease(image.fd);
    const end = async () => {
      ended ??= { wasFrozen: isWhole(), frozenMs: this.clock.monotonicMs() - startedMs };
      over.abort();
      try {
        // Closing the file releases the lease as well, but not before the last call on it has ended.
        releaseLease(image.fd);
      } finally {
        this.forget(volume);
        await image.close();
      }
    };
    const thaw = once(async () => {
      await end();
      return ended as Thaw;
    });
    this.spawn(over.signal, timeoutMs, async () => {
      ended = { wasFrozen: false, frozenMs: timeoutMs };
      await thaw();
    });
    return { isMounted: false, isWhole, thaw };
  }

  private async freezeMounts(volume: string, attachments: readonly Attachment[], timeoutMs: number): Promise<Entry> {
    const fileSystems = fileSystemsOn(volume, attachments);
    await this.refuseOwn(volume, [...fileSystems.keys()]);
    const handles = await openAll(volume, fileSystems);
    const note = await this.writeNote(volume, [...fileSystems.keys()]).catch(async (error: unknown) => {
      for (const handle of handles) await handle.close();
      throw error;
    });
    const guard = this.takeGuard();
    const byForce = () => this.thawByForce(guard, handles);
    const cleanUp = async () => {
      for (const handle of handles) await handle.close();
      await fs.rm(note, { force: true });
      this.dropGuard(guard);
    };
    let held: HeldByGuard;
    try {
      held = await guard.freeze([...fileSystems.values()], timeoutMs);
    } catch (error) {
      if (!(error instanceof GuardError && error.isUndone)) await byForce();
      await cleanUp();
      throw refusal(volume, fileSystems, error);
    }
    return this.frozenEntry(volume, { fileSystems, held, byForce, cleanUp, timeoutMs });
  }

  private frozenEntry(
    volume: string,
    parts: {
      readonly fileSystems: ReadonlyMap<string, readonly Mount[]>;
      readonly held: HeldByGuard;
      readonly byForce: () => Promise<void>;
      readonly cleanUp: () => Promise<void>;
      readonly timeoutMs: number;
    },
  ): Entry {
    const { fileSystems, held, byForce, cleanUp, timeoutMs } = parts;
    const startedMs = this.clock.monotonicMs();
    const over = new AbortController();
    let isBroken = false;
    const isWhole = () => !isBroken;
    const thaw = once(async (): Promise<Thaw> => {
      const [hasOtherMounts, thawed] = await Promise.all([
        // Not knowing is no reason not to thaw.
        this.hasOtherMounts(volume, fileSystems).catch(() => true),
        held.thaw().catch(async () => {
          await byForce();
          return { wasFrozen: false, frozenMs: this.clock.monotonicMs() - startedMs };
        }),
      ]);
      over.abort();
      await cleanUp();
      this.forget(volume);
      return { ...thawed, wasFrozen: thawed.wasFrozen && !hasOtherMounts };
    });
    const broken = async () => {
      isBroken = true;
      await thaw();
    };
    // By its own timer, or because it died: then what it had frozen does not stay so until somebody asks.
    held.thawed.then(broken, broken).catch(() => undefined);
    this.spawn(over.signal, timeoutMs + graceMs, broken);
    return { isMounted: true, isWhole, thaw };
  }

  /** The image was attached in another way, or has another file system mounted, while it was thought to be frozen as a whole. */
  private async hasOtherMounts(volume: string, fileSystems: ReadonlyMap<string, readonly Mount[]>): Promise<boolean> {
    const now = await attachmentsOf(this.layout.live(volume));
    return now.some(({ isWritable, mounts }) => {
      const isRaw = isWritable && mounts.length === 0;
      return isRaw || mounts.some(({ device }) => !fileSystems.has(device));
    });
  }

  /** The agent must never wait for itself. */
  private async refuseOwn(volume: string, devices: readonly string[]): Promise<void> {
    const written = await writtenByThisProcess();
    const holding = await deviceHolding(this.layout.root);
    if (holding !== undefined) written.set(holding, this.layout.root);
    const own = devices.find((device) => written.has(device));
    if (own === undefined) return;
    const text = `volume ${volume} cannot be frozen: the agent itself writes to its file system (${written.get(own)})`;
    throw new LongshoreError("Unsupported", text);
  }

  private async writeNote(volume: string, devices: readonly string[]): Promise<string> {
    const path = join(this.folder(), volume);
    const note: FreezeNote = { bootId: await bootId(), devices };
    await fs.mkdir(this.folder(), { recursive: true });
    // Not synced: after a loss of power nothing is frozen, and the death of a process loses nothing.
    await fs.writeFile(path, JSON.stringify(note));
    return path;
  }

  /** Without the guard, which must be gone before: it could freeze once more. The next freeze gets another one at once. */
  private async thawByForce(guard: GuardProcess, handles: readonly fs.FileHandle[]): Promise<void> {
    if (this.guard?.process === guard) this.guard = undefined;
    guard.kill();
    await guard.gone;
    for (const handle of handles) await thawFileSystem(handle.fd);
  }

  private takeGuard(): GuardProcess {
    this.guard ??= { process: new GuardProcess(this.clock), users: 0 };
    this.guard.users++;
    const { process } = this.guard;
    void process.gone.then(() => {
      // A dead one is of no use to the next freeze.
      if (this.guard?.process === process) this.guard = undefined;
    });
    return process;
  }

  private dropGuard(process: GuardProcess): void {
    if (this.guard?.process !== process) return;
    this.guard.users--;
    if (this.guard.users > 0) return;
    this.guard = undefined;
    process.end();
  }

  private spawn(signal: AbortSignal, afterMs: number, work: () => Promise<void>): void {
    const task = this.clock.sleep(afterMs, signal).then(work);
    // Either it was thawed in time, or thawing failed, which whoever asks for the thaw is told.
    task.catch(() => undefined);
  }
}

function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => {
    result ??= work();
    return result;
  };
}

function isLeased(volume: string, fd: number): boolean {
  try {
    return takeReadLease(fd);
  } catch (cause) {
    const text = `the file system cannot tell whether volume ${volume} is attached (${errnoOf(cause)})`;
    throw new LongshoreError("Unsupported", text, { cause });
  }
}

/** The file systems of an image by device number; `VolumeBusy` when it may be written to past them. */
function fileSystemsOn(volume: string, attachments: readonly Attachment[]): Map<string, Mount[]> {
  const raw = attachments.find(({ isWritable, mounts }) => isWritable && mounts.length === 0);
  if (raw !== undefined) throw attachedRaw(volume, `/dev/${raw.name} is attached to it and not mounted here`);
  return Map.groupBy(
    attachments.flatMap(({ mounts }) => mounts),
    ({ device }) => device,
  );
}

function attachedRaw(volume: string, why: string): LongshoreError {
  return new LongshoreError("VolumeBusy", `nobody can tell who writes to volume ${volume}: ${why}`);
}

/** Open, they can be thawed whatever becomes of the mount points. */
async function openAll(volume: string, fileSystems: ReadonlyMap<string, readonly Mount[]>): Promise<fs.FileHandle[]> {
  const handles: fs.FileHandle[] = [];
  try {
    for (const mounts of fileSystems.values()) {
      const handle = await firstOpen(mounts);
      if (handle === undefined) throw unreachable(volume, mounts);
      handles.push(handle);
    }
    return handles;
  } catch (error) {
    for (const open of handles) await open.close();
    throw error;
  }
}

function unreachable(volume: string, mounts: readonly Mount[]): LongshoreError {
  const paths = mounts.map(({ path }) => path).join(", ");
  return new LongshoreError("VolumeBusy", `volume ${volume} is mounted at ${paths}, which cannot be reached`);
}

async function firstOpen(mounts: readonly Mount[]): Promise<fs.FileHandle | undefined> {
  for (const mount of mounts) {
    const handle = await openMount(mount);
    if (handle !== undefined) return handle;
  }
  return undefined;
}

function refusal(volume: string, fileSystems: ReadonlyMap<string, readonly Mount[]>, cause: unknown): LongshoreError {
  const paths = [...fileSystems.values()].map((mounts) => mounts[0]?.path).join(", ");
  const errno = cause instanceof GuardError ? cause.errno : undefined;
  const isForEver = ["EPERM", "EACCES", "EOPNOTSUPP", "ENOTTY", "EINVAL"].includes(errno ?? "");
  const why = errno === "EBUSY" ? "somebody else has frozen it" : describe(cause);
  const text = `volume ${volume}, mounted at ${paths}, cannot be frozen: ${why}`;
  return new LongshoreError(isForEver ? "Unsupported" : "VolumeBusy", text, { cause });
}

/** Those that are not among the mounts, or cannot be thawed now. */
async function thawDevices(devices: readonly string[], mounts: readonly Mount[]): Promise<string[]> {
  const left: string[] = [];
  for (const device of devices) {
    const handle = await firstOpen(mounts.filter((mount) => mount.device === device));
    if (handle === undefined) {
      left.push(device);
      continue;
    }
    try {
      await thawFileSystem(handle.fd);
    } finally {
      await handle.close();
    }
  }
  return left;
}

function parseNote(text: string): FreezeNote | undefined {
  try {
    return JSON.parse(text) as FreezeNote;
  } catch {
    // It was being written, so nothing was frozen yet.
    return undefined;
  }
}

async function bootId(): Promise<string> {
  return (await fs.readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}
