// A node in memory: image files, loop devices, file systems and mounts as the kernel has them, as far as a Host shows them. What a process
// would lose with its memory is not kept here but by who uses it, so one FakeHost outlives any number of them.
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Content } from "../../src/host/content.ts";
import type { FileSystemType, Growth, MountHow } from "../../src/host/file-systems.ts";
import { type Host, isBelow } from "../../src/host/host.ts";
import { HostError } from "../../src/host/host-error.ts";
import type { Device, ImageIdentity } from "../../src/host/loop-devices.ts";
import type { BindHow, Mounted } from "../../src/host/mounts.ts";
import type { Usage } from "../../src/host/usage.ts";
import type { VolumeNote } from "../../src/host/volume-notes.ts";
import type { CrashPoint } from "./crash-point.ts";

interface FakeImage {
  readonly path: string;
  readonly inode: string;
  sizeBytes: number;
  content: Content;
  /** How far its file system reaches. */
  fileSystemBytes: number;
  /** How often one was made on it. */
  formats: number;
  isDeleted: boolean;
}

interface FakeLoop {
  readonly number: string;
  readonly path: string;
  readonly image: FakeImage;
  readonly isReadOnly: boolean;
  sizeBytes: number;
  /** It goes with its last user. */
  isGoing: boolean;
}

interface FakeMount {
  readonly path: string;
  readonly loop: FakeLoop;
  readonly type: string;
  readonly flags: readonly string[];
  readonly isReadOnly: boolean;
}

export interface FakeHostOptions {
  readonly kubeletDir?: string;
  /** Whether an ext4 may grow while it is mounted, which takes a capability. */
  readonly growsMountedExt4?: boolean;
}

export class FakeHost implements Host {
  readonly kubeletDir: string;
  growsMountedExt4: boolean;
  readonly notes = new Map<string, VolumeNote>();
  #images: FakeImage[] = [];
  #loops: FakeLoop[] = [];
  #mounts: FakeMount[] = [];
  /** Folders and files that things are, or were, mounted at; those with something in them are not removed. */
  readonly places = new Map<string, "folder" | "file" | "full">();
  /** Places whose file system does not answer any more, and how. */
  readonly broken = new Map<string, string>();
  #bootId = 1;
  #inodes = 100;

  constructor({ kubeletDir = "/kubelet", growsMountedExt4 = true }: FakeHostOptions = {}) {
    this.kubeletDir = kubeletDir;
    this.growsMountedExt4 = growsMountedExt4;
  }

  reaches(path: string): boolean {
    return isBelow(path, this.kubeletDir);
  }

  async readNote(volume: string): Promise<VolumeNote | undefined> {
    return structuredClone(this.notes.get(volume));
  }

  async writeNote(volume: string, note: VolumeNote): Promise<void> {
    this.notes.set(volume, structuredClone(note));
  }

  async removeNote(volume: string): Promise<void> {
    this.notes.delete(volume);
  }

  // ---- images and devices ----

  async identify(path: string): Promise<ImageIdentity> {
    const image = this.#named(path);
    if (image === undefined) throw new LongshoreError("VolumeGone", `the image ${path} is not there`);
    return { path, device: "8:1", inode: image.inode, bootId: String(this.#bootId) };
  }

  async attach(path: string, { isReadOnly }: { readonly isReadOnly: boolean }): Promise<Device> {
    const image = this.#named(path);
    if (image === undefined) throw new LongshoreError("VolumeGone", `the image ${path} is not there`);
    const present = this.#loops.filter((loop) => loop.image === image);
    const [one] = present;
    if (present.length > 1 || (one !== undefined && one.isReadOnly !== isReadOnly)) {
      const names = present.map((loop) => loop.path).join(" and ");
      throw new LongshoreError("VolumeBusy", `${path} is attached as ${names} already`);
    }
    const loop = one ?? this.#newLoop(image, isReadOnly);
    loop.isGoing = false;
    loop.sizeBytes = image.sizeBytes;
    return shown(loop);
  }

  async devicesOf({ inode, bootId }: ImageIdentity): Promise<Device[]> {
    if (bootId !== String(this.#bootId)) return [];
    return this.#loops.filter((loop) => loop.image.inode === inode).map(shown);
  }

  async resize(device: Device): Promise<Device> {
    const loop = this.#loop(device);
    loop.sizeBytes = loop.image.sizeBytes;
    return shown(loop);
  }

  async detach(device: Device): Promise<void> {
    const loop = this.#loops.find(({ number }) => number === device.number);
    if (loop === undefined) return;
    loop.isGoing = true;
    this.#sweep();
  }

  // ---- what is on them ----

  async contentOf(device: Device): Promise<Content> {
    return structuredClone(this.#loop(device).image.content);
  }

  async format(device: Device, type: FileSystemType): Promise<void> {
    this.beginFormat(device);
    const loop = this.#loop(device);
    loop.image.content = { kind: "fileSystem", type };
    loop.image.fileSystemBytes = loop.sizeBytes;
    loop.image.formats++;
  }

  /** As a format leaves a device that was interrupted in it: it may even look whole. */
  beginFormat(device: Device): void {
    const loop = this.#loop(device);
    if (loop.isReadOnly) throw new HostError(`${loop.path} is for reading only`);
    if (this.#mounts.some((mount) => mount.loop === loop)) throw new HostError(`${loop.path} is mounted`);
    loop.image.content = { kind: "fileSystem", type: "ext4" };
    loop.image.fileSystemBytes = 0;
  }

  async grow(device: Device, path: string, type: FileSystemType): Promise<Growth> {
    const loop = this.#loop(device);
    const isMounted = this.#mounts.some((mount) => mount.path === path && mount.loop === loop && mount.type === type);
    if (!isMounted) throw new HostError(`no ${type} of ${loop.path} is mounted at ${path}`);
    const { image, sizeBytes } = loop;
    if (type === "ext4" && !this.growsMountedExt4 && image.fileSystemBytes < sizeBytes) {
      return { kind: "refused", why: "the kernel does not let this ext4 grow while it is mounted" };
    }
    image.fileSystemBytes = Math.max(image.fileSystemBytes, sizeBytes);
    return { kind: "done" };
  }

  async growUnmounted(device: Device, type: FileSystemType): Promise<void> {
    const loop = this.#loop(device);
    if (type !== "ext4") throw new HostError(`a file system of type ${type} grows only while it is mounted`);
    if (this.#mounts.some((mount) => mount.loop === loop)) throw new HostError(`${loop.path} is mounted`);
    loop.image.fileSystemBytes = Math.max(loop.image.fileSystemBytes, loop.sizeBytes);
  }

  async usage({ device, type }: Mounted): Promise<Usage> {
    const loop = this.#loops.find(({ number }) => number === device);
    if (loop === undefined) throw new HostError(`there is no block device ${device}`);
    if (type === "block") return { kind: "block", totalBytes: loop.sizeBytes };
    const total = loop.image.fileSystemBytes;
    const inodes = type === "btrfs" ? 0 : 1000;
    return {
      kind: "fileSystem",
      bytes: { total, used: 4096, available: total - 4096 },
      inodes: { total: inodes, used: inodes === 0 ? 0 : 3, available: inodes === 0 ? 0 : inodes - 3 },
    };
  }

  // ---- mounts ----

  async mountAt(path: string): Promise<Mounted | undefined> {
    const mount = this.#mounts.findLast((one) => one.path === path);
    if (mount === undefined) return undefined;
    const { loop, type, isReadOnly } = mount;
    const deleted = loop.image.isDeleted ? `its image ${loop.image.path} was deleted` : undefined;
    const broken = type === "block" ? undefined : (this.broken.get(path) ?? deleted);
    return { path, device: loop.number, type, source: loop.path, isReadOnly, broken };
  }

  async mountsOf(device: Device): Promise<string[]> {
    return this.#mounts.filter(({ loop }) => loop.number === device.number).map(({ path }) => path);
  }

  async mount(device: Device, path: string, { type, flags, isReadOnly }: MountHow): Promise<void> {
    const loop = this.#loop(device);
    const { content, fileSystemBytes } = loop.image;
    if (content.kind !== "fileSystem" || content.type !== type || fileSystemBytes === 0) {
      throw new HostError(`mount -t ${type} ${loop.path} ${path}: exit status 32: wrong fs type`);
    }
    this.#make(path, "folder");
    this.#mounts.push({ path, loop, type, flags: [...flags], isReadOnly: isReadOnly || loop.isReadOnly });
  }

  async unmount(path: string): Promise<void> {
    this.#mounts = this.#mounts.filter((mount) => mount.path !== path);
    this.#sweep();
  }

  async bind(source: string, target: string, { place, isReadOnly }: BindHow): Promise<void> {
    const device = this.#loops.find((loop) => loop.path === source);
    const mount = this.#mounts.findLast((one) => one.path === source);
    this.#make(target, place);
    if (device !== undefined) this.#mounts.push({ path: target, loop: device, type: "block", flags: [], isReadOnly });
    else if (mount !== undefined) {
      this.#mounts.push({ ...mount, path: target, isReadOnly: isReadOnly || mount.isReadOnly });
    } else throw new HostError(`${source} is neither a device nor mounted`);
  }

  async unbind(target: string): Promise<void> {
    await this.unmount(target);
    if (this.places.get(target) === "full") throw new HostError(`${target}, where nothing is mounted, is not empty`);
    this.places.delete(target);
  }

  // ---- what happens to the node, and what a test looks at ----

  makeImage(path: string, sizeBytes: number, content: Content = { kind: "blank" }): void {
    const fileSystemBytes = content.kind === "fileSystem" ? sizeBytes : 0;
    const inode = String(++this.#inodes);
    this.#images.push({ path, inode, sizeBytes, content, fileSystemBytes, formats: 0, isDeleted: false });
  }

  growImage(path: string, sizeBytes: number): void {
    this.image(path).sizeBytes = sizeBytes;
  }

  /** What the agent does to a volume it deletes; a device keeps the image it has. */
  deleteImage(path: string): void {
    this.image(path).isDeleted = true;
  }

  image(path: string): FakeImage {
    const image = this.#named(path);
    if (image === undefined) throw new Error(`there is no image ${path}`);
    return image;
  }

  /** The machine starts anew: notes, images and folders are there, everything else is gone. */
  reboot(): void {
    this.#bootId++;
    this.#mounts = [];
    this.#loops = [];
  }

  /** As an administrator does by hand. */
  mountByHand(imagePath: string, at: string): void {
    const image = this.image(imagePath);
    const loop = this.#loops.find((one) => one.image === image) ?? this.#newLoop(image, false);
    this.#mounts.push({ path: at, loop, type: "ext4", flags: [], isReadOnly: false });
  }

  /** All there is, for comparison. */
  summary() {
    return {
      notes: Object.fromEntries(this.notes),
      devices: this.#loops.map(({ image, isReadOnly, sizeBytes, isGoing }) => ({
        image: image.path,
        isReadOnly,
        sizeBytes,
        isGoing,
      })),
      mounts: this.#mounts.map(({ path, loop, type, flags, isReadOnly }) => ({
        path,
        image: loop.image.path,
        type,
        flags,
        isReadOnly,
      })),
      places: Object.fromEntries(this.places),
      images: this.#images.map(({ path, content, fileSystemBytes }) => ({ path, content, fileSystemBytes })),
    };
  }

  #named(path: string): FakeImage | undefined {
    return this.#images.findLast((image) => image.path === path && !image.isDeleted);
  }

  #loop(device: Device): FakeLoop {
    const loop = this.#loops.find(({ number }) => number === device.number);
    if (loop === undefined) throw new HostError(`${device.path} is not attached`);
    return loop;
  }

  #newLoop(image: FakeImage, isReadOnly: boolean): FakeLoop {
    const taken = new Set(this.#loops.map(({ number }) => number));
    let minor = 0;
    while (taken.has(`7:${minor}`)) minor++;
    const { sizeBytes } = image;
    const loop = { number: `7:${minor}`, path: `/dev/loop${minor}`, image, isReadOnly, sizeBytes, isGoing: false };
    this.#loops.push(loop);
    return loop;
  }

  #make(path: string, place: "folder" | "file"): void {
    if (!this.places.has(path)) this.places.set(path, place);
  }

  /** Devices that were detached while they were in use, and are not any more. A node that is bound uses nothing. */
  #sweep(): void {
    const isUsed = (loop: FakeLoop) => this.#mounts.some((mount) => mount.loop === loop && mount.type !== "block");
    this.#loops = this.#loops.filter((loop) => !loop.isGoing || isUsed(loop));
  }
}

function shown({ path, number, isReadOnly, sizeBytes }: FakeLoop): Device {
  return { path, number, isReadOnly, sizeBytes };
}

/** What a lost answer looks like to who waits for it. */
const lost = (name: string) => new HostError(`${name}: nobody knows how it ended`);

/** The same host for a process that dies, or loses an answer, at an effect of its choice. */
export function crashingHost(host: FakeHost, crash: CrashPoint): Host {
  const read = async <T>(perform: () => Promise<T>): Promise<T> => {
    crash.check();
    return perform();
  };
  const effect = <T>(name: string, perform: () => Promise<T>): Promise<T> => crash.effect(name, perform, lost);
  return {
    reaches: (path) => host.reaches(path),
    readNote: (volume) => read(() => host.readNote(volume)),
    writeNote: (volume, note) => effect("write note", () => host.writeNote(volume, note)),
    removeNote: (volume) => effect("remove note", () => host.removeNote(volume)),
    identify: (image) => read(() => host.identify(image)),
    attach: (image, options) => effect("attach", () => host.attach(image, options)),
    devicesOf: (image) => read(() => host.devicesOf(image)),
    resize: (device) => effect("resize", () => host.resize(device)),
    detach: (device) => effect("detach", () => host.detach(device)),
    contentOf: (device) => read(() => host.contentOf(device)),
    async format(device, type) {
      // It may be interrupted in its middle as well.
      await effect("begin to format", async () => host.beginFormat(device));
      await effect("format", () => host.format(device, type));
    },
    mountAt: (path) => read(() => host.mountAt(path)),
    mountsOf: (device) => read(() => host.mountsOf(device)),
    mount: (device, path, how) => effect("mount", () => host.mount(device, path, how)),
    unmount: (path) => effect("unmount", () => host.unmount(path)),
    bind: (source, target, how) => effect("bind", () => host.bind(source, target, how)),
    unbind: (target) => effect("unbind", () => host.unbind(target)),
    grow: (device, path, type) => effect("grow", () => host.grow(device, path, type)),
    growUnmounted: (device, type) => effect("grow unmounted", () => host.growUnmounted(device, type)),
    usage: (mounted) => read(() => host.usage(mounted)),
  };
}
