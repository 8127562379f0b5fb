// The part of the fault matrix in which an agent is cut off from all others at a barrier for longer than its lease.
import { declareMatrix } from "./matrix-tests.ts";

declareMatrix("partition");
