"""Run a Python program in this process while its lease lasts: leased.py DESCRIPTOR PARENT PROGRAM…

PROGRAM is a console script, `python -m MODULE` or `python SCRIPT`, each with its arguments. From the pipe DESCRIPTOR a thread reads until
when the program may run, again and again, and sets a timer of the kernel to it. A process that is not renewed the kernel kills, with
SIGKILL, which cannot be caught; one that is frozen as well, before it runs another instruction. The end of the pipe or of PARENT ends it
at once.

The timer is this process's: neither a child nor what it becomes by exec has it. singleton.py sees to those.
"""

import ctypes
import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
TIMER_ABSTIME = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class SigEvent(ctypes.Structure):
    """What a timer does; a notification of 0 is a signal. The kernel's is 64 bytes long."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notification", ctypes.c_int),
        ("rest", ctypes.c_char * 64),
    )


def check(result: int) -> None:
    """Raise what a call into the C library has failed with."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Fence:
    """The timer. Not `setitimer`, which stands still while the host is suspended and which the program may use for itself."""

    def __init__(self) -> None:
        self.timer = ctypes.c_void_p()
        event = SigEvent(number=signal.SIGKILL)
        check(LIBC.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self.timer)))

    def move(self, deadline: float) -> None:
        """Let the process live until then. A time in the past kills it now."""
        seconds, fraction = divmod(deadline, 1)
        times = (ctypes.c_long * 4)(0, 0, int(seconds), int(fraction * 1e9))
        check(LIBC.timer_settime(self.timer, TIMER_ABSTIME, ctypes.byref(times), None))

    def follow(self, descriptor: int) -> None:
        """Move the timer with the lease until the pipe ends."""
        # The program may replace os.read with one for its own loop
        read = os.read
        try:
            while line := read(descriptor, 65536):
                self.move(float(line.split()[-1]))
        finally:
            # Its process group, which is its own
            os.kill(0, signal.SIGKILL)


def run(program: list[str]) -> None:
    """Run the program as its own interpreter would."""
    command, *words = program
    if not re.fullmatch(r"python[0-9.]*", Path(command).name):
        script = shutil.which(command)
        if script is None:
            sys.exit(f"leased: there is no program {command}")
        words = [script, *words]
    module = words[:1] == ["-m"] and len(words) > 1
    if not module and (not words or words[0].startswith("-")):
        sys.exit(f"leased: python is followed by -m MODULE or by a script, not by {words[:1]}")
    sys.argv = words[1:] if module else words
    if not sys.flags.safe_path:
        # Where this file is, modules are none of the program's
        sys.path[0] = str(Path.cwd() if module else Path(words[0]).resolve().parent)
    if module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Have the fence up before anything of the program runs."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    check(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(0, signal.SIGKILL)
    fence = Fence()
    # The first is in the pipe already
    fence.move(float(os.read(descriptor, 65536).split()[-1]))
    threading.Thread(target=fence.follow, args=(descriptor,), daemon=True).start()
    run(sys.argv[3:])


if __name__ == "__main__":
    main()
