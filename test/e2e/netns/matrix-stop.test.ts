// The part of the fault matrix in which an agent is stopped at a barrier for longer than its lease, and then goes on.
import { declareMatrix } from "./matrix-tests.ts";

declareMatrix("stop");
