// The part of the fault matrix in which an agent is killed at a barrier, and started again at once.
import { declareMatrix } from "./matrix-tests.ts";

declareMatrix("kill");
