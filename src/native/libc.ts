// The C library, through koffi; its functions are declared beside those who call them, all of them in this folder.
import koffi from "koffi";
import { systemError } from "../base/system-error.ts";

export const libc = koffi.load("libc.so.6");

export type NativeFunction = ReturnType<typeof libc.func>;

/** What the call just made returned, unless that says that it failed. */
export function checked(syscall: string, result: number): number {
  if (result < 0) throw systemError(syscall, koffi.errno());
  return result;
}

/** Makes a long call in libuv's pool; koffi 3.2 and later make its errno available in the callback. */
export function inPool(syscall: string, call: NativeFunction, args: readonly unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: number) => {
      if (error) reject(error);
      else if (result < 0) reject(systemError(syscall, koffi.errno()));
      else resolve(result);
    });
  });
}
