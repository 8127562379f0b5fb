// What a test and an agent under test say to each other over the channel between parent and child.

/** Whether the agent makes the call or answers it. */
export type CallSide = "calling" | "serving";

/** Holds every call that fits, until it is opened. */
export interface Gate {
  readonly id: string;
  readonly side: CallSide;
  /** Such as `peer.freeze` or `member.order`. */
  readonly call: string;
  /** Before it is made or carried out, or after it was answered or carried out well. */
  readonly moment: "before" | "after";
  /** Holds only calls whose parameters, as JSON, contain this; all when it is empty. */
  readonly containing: string;
}

export type ToAgent =
  | { readonly kind: "close"; readonly question: number; readonly gate: Gate }
  | { readonly kind: "open"; readonly id: string }
  | {
      readonly kind: "rows";
      readonly question: number;
      readonly sql: string;
      readonly values: readonly (string | number)[];
    };

export type FromAgent =
  | { readonly kind: "held"; readonly id: string; readonly call: string }
  /** A call that was held before it was made has been answered: `code` is the error's, null when it went well. */
  | { readonly kind: "answered"; readonly id: string; readonly call: string; readonly code: string | null }
  | { readonly kind: "done"; readonly question: number; readonly rows: readonly object[]; readonly problem?: string };
