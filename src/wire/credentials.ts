// Who we are and whom we trust, as certificates: read from files, read again when the files change.

/** The roles a certificate's URI name can carry: `longshore://cluster/<uid>/<role>`. */
export type Role = "agent" | "operator" | "csi" | "admin";

export interface Identity {
  readonly clusterUid: string;
  readonly role: Role;
}

export interface Credentials {
  readonly identity: Identity;
  /** PEM texts as of now. */
  current(): { readonly cert: string; readonly key: string; readonly ca: string };
  /** Calls back after the files changed and the new content is in force. Returns the unsubscriber. */
  onChange(listener: () => void): () => void;
  close(): void;
}
