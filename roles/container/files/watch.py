"""Run a program, and again after each change of a Python file: watch.py --watch=PATH… --stop-wait=SECONDS -- PROGRAM…

Not by the command `watchfiles`: told to stop, that one gives a program five seconds, whatever its options say.
"""

import argparse
import signal
import subprocess
import threading

from watchfiles import PythonFilter, watch


def stop(program: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Stop the program as supervisord would: the signal for its parent process alone, then a time to end."""
    program.terminate()
    try:
        program.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"watch: the program has not ended in {seconds:g} s; killing it", flush=True)
        program.kill()
        program.wait()


def main() -> None:
    """Run the program until this one is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watch", action="append", required=True)
    parser.add_argument("--stop-wait", type=float, required=True)
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args()

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_arguments: stopping.set())
    program = subprocess.Popen(arguments.program)
    for changes in watch(*arguments.watch, watch_filter=PythonFilter(), stop_event=stopping, ignore_permission_denied=True):
        print(f"watch: {', '.join(sorted(path for _change, path in changes))} changed; starting the program anew", flush=True)
        stop(program, arguments.stop_wait)
        if stopping.is_set():
            return
        program = subprocess.Popen(arguments.program)
    stop(program, arguments.stop_wait)


if __name__ == "__main__":
    main()
