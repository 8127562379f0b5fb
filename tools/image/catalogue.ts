// Which images there are, and what each is made of: ours, and for the tests those of the sidecars and of what runs in their pods.
import manifest from "../../package.json" with { type: "json" };

/** A part of an image that is made, kept and compared by itself. */
export type LayerSpec =
  /** Debian packages and what they depend on, without those of the layers below and those that match `without`. */
  | {
      readonly kind: "debian";
      readonly name: string;
      readonly packages: readonly string[];
      readonly below: readonly string[];
      readonly without: RegExp;
    }
  /** Files, folders and links that are written here. */
  | { readonly kind: "files"; readonly name: string; readonly files: readonly FileSpec[] }
  /** The Node.js that the npm packages brought. */
  | { readonly kind: "node"; readonly name: "node" }
  /** The npm packages that ours needs when it runs. */
  | { readonly kind: "modules"; readonly name: "modules" }
  /** Our own source, as JavaScript. */
  | { readonly kind: "source"; readonly name: "source" }
  /** One program of .cache/controlplane, linked statically. */
  | { readonly kind: "program"; readonly name: string };

export type FileSpec =
  | { readonly path: string; readonly mode: number; readonly text: string }
  | { readonly path: string; readonly mode: number; readonly folder: true }
  | { readonly path: string; readonly target: string };

export interface ImageSpec {
  /** Of the file it is written to, without `.tar`. */
  readonly name: string;
  /** As manifests name it. */
  readonly reference: string;
  readonly layers: readonly LayerSpec[];
  readonly entrypoint: readonly string[];
  readonly command?: readonly string[];
  readonly user: string;
  readonly path: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** The packages that the node plugin runs programs of; the Dockerfile has the same ones. */
export const storagePackages = ["btrfs-progs", "e2fsprogs", "mount", "util-linux", "xfsprogs"];

const basePackages = ["busybox", "coreutils", "dash", "libatomic1", "libc6", "libstdc++6", "sed"];

// What packages ask for to install themselves, which nobody does here, and what serves programs that are not run: xfs_scrub is in
// Python and needs ICU; PostgreSQL compiles queries with LLVM only when it is told to.
const installers = [
  ...["adduser", "debconf", "debianutils", "dpkg", "init-system-helpers", "login", "passwd", "perl.*", "libperl.*"],
  ...["sensible-utils", "tar", "ucf"],
];
const python = ["(lib)?python3.*", "media-types", "libexpat1", "libffi8", "(lib)?readline.*", "libsqlite3-0"];
const postgresExtras = [
  ...["libllvm14", "libz3-4", "postgresql-.*common", "locales", "libc-bin", "libc-l10n", "logrotate", "lsb-base"],
  ...["netbase", "openssl", "ssl-cert", "cron.*", "libjson-perl"],
];
const anyOf = (...patterns: string[]) => new RegExp(`^(?:${patterns.join("|")})$`);
const without = {
  base: anyOf(...installers),
  storage: anyOf(...installers, ...python, "libicu72"),
  postgres: anyOf(...installers, ...postgresExtras),
};

const base: LayerSpec = { kind: "debian", name: "base", packages: basePackages, below: [], without: without.base };

/** Who we are when we are not root. The number is that of the manifests. */
const accounts = "root:x:0:0:root:/root:/bin/sh\nlongshore:x:65532:65532:longshore:/tmp:/bin/sh\n";
const groups = "root:x:0:\nlongshore:x:65532:\n";

const skeleton: LayerSpec = {
  kind: "files",
  name: "skeleton",
  files: [
    { path: "etc/passwd", mode: 0o644, text: accounts },
    { path: "etc/group", mode: 0o644, text: groups },
    { path: "etc/nsswitch.conf", mode: 0o644, text: "passwd: files\ngroup: files\nhosts: files dns\n" },
    { path: "dev", mode: 0o755, folder: true },
    { path: "proc", mode: 0o755, folder: true },
    { path: "sys", mode: 0o755, folder: true },
    { path: "run", mode: 0o755, folder: true },
    { path: "root", mode: 0o755, folder: true },
    { path: "tmp", mode: 0o1777, folder: true },
    { path: "var/tmp", mode: 0o1777, folder: true },
  ],
};

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const nobody = "65532:65532";

const longshore: ImageSpec = {
  name: "longshore",
  reference: `longshore:${manifest.version}`,
  layers: [
    skeleton,
    base,
    { kind: "debian", name: "storage", packages: storagePackages, below: basePackages, without: without.storage },
    { kind: "node", name: "node" },
    { kind: "modules", name: "modules" },
    { kind: "source", name: "source" },
  ],
  entrypoint: ["longshore"],
  user: nobody,
  path,
};

function sidecar(program: string, version: string): ImageSpec {
  return {
    name: program,
    reference: `registry.k8s.io/sig-storage/${program}:${version}`,
    layers: [{ kind: "program", name: program }],
    entrypoint: [`/${program}`],
    user: nobody,
    path: "/",
  };
}

/** What a pod's sandbox runs: nothing, until it is told to end. */
const pause: ImageSpec = {
  name: "pause",
  reference: "registry.k8s.io/pause:3.10",
  layers: [skeleton, base],
  entrypoint: ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done"],
  user: nobody,
  path,
};

/** Busybox's own programs, but for those that the layer has better ones of. */
const applets = [
  ...["awk", "find", "free", "grep", "head", "hostname", "ip", "kill", "killall", "less", "mount", "nc", "netstat"],
  ...["nslookup", "pgrep", "ping", "pkill", "ps", "tar", "top", "umount", "vi", "wget", "which", "xargs"],
];

const busybox: ImageSpec = {
  name: "busybox",
  reference: "docker.io/library/busybox:test",
  layers: [
    skeleton,
    base,
    {
      kind: "files",
      name: "applets",
      files: applets.map((name) => ({ path: `usr/local/bin/${name}`, target: "/bin/busybox" })),
    },
  ],
  entrypoint: [],
  command: ["/bin/sh"],
  user: "0:0",
  path,
};

// The database appears whole or not at all, so that a pod that is killed while it makes one makes it anew.
const servePostgres = `#!/bin/sh
# Serves the database in $PGDATA, which is made on the first start. Whoever reaches it may do anything: it is for tests.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA" "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --auth=trust --data-checksums --encoding=UTF8 --locale=C
  echo "host all all all trust" >>"$PGDATA.new/pg_hba.conf"
  mv "$PGDATA.new" "$PGDATA"
  sync
fi
# The kubelet lets the pod's group in, which PostgreSQL refuses to start with.
chmod 0700 "$PGDATA"
exec postgres -D "$PGDATA" -c jit=off -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
`;

const postgres: ImageSpec = {
  name: "postgres",
  reference: "docker.io/library/postgres:test",
  layers: [
    skeleton,
    base,
    {
      kind: "debian",
      name: "postgres",
      packages: ["postgresql-15", "tzdata"],
      below: basePackages,
      without: without.postgres,
    },
    {
      kind: "files",
      name: "serve-postgres",
      files: [{ path: "usr/local/bin/serve-postgres", mode: 0o755, text: servePostgres }],
    },
  ],
  entrypoint: ["serve-postgres"],
  user: nobody,
  path: `/usr/lib/postgresql/15/bin:${path}`,
  env: { PGDATA: "/data/pgdata", PGUSER: "postgres", PGHOST: "/tmp" },
};

const forTests: readonly ImageSpec[] = [
  sidecar("csi-provisioner", "v5.3.0"),
  sidecar("csi-resizer", "v1.14.0"),
  sidecar("csi-snapshotter", "v8.3.0"),
  sidecar("csi-snapshot-metadata", "v0.2.0"),
  sidecar("snapshot-controller", "v8.3.0"),
  pause,
  busybox,
  postgres,
];

/** Ours alone, or all that the manifests and the tests run. */
export function imagesOf(which: "longshore" | "all"): readonly ImageSpec[] {
  return which === "all" ? [longshore, ...forTests] : [longshore];
}
