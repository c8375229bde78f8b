"""supervisord that notices at once when it is asked to end, and when a program has ended: supervisord.py -c FILE.

supervisord looks whether there is anything to do when a second has passed, or when something can be read: programs that print, and
whoever asks it something. A signal is neither (PEP 475), so it waits for the rest of its second before it starts the programs, before it
passes on that the container shall end, and again before it sees that they have ended. Here, each signal can be read too.
"""

import os
import signal

from supervisor import supervisord
from supervisor.medusa.asyncore_25 import file_dispatcher


class Signals(file_dispatcher):
    """What Python writes to a pipe when there is a signal, as one more thing in supervisord's loop that can be read."""

    def __init__(self) -> None:
        """Have signals written from now on."""
        # This comes first in the process, so these are 3 and 4: what supervisord closes when it reads its configuration anew begins with 5
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        super().__init__(readable)
        self._more = writable
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        # As if there had been one: the programs start without a first second of waiting
        os.write(writable, b"\0")

    def writable(self) -> bool:
        """Nothing is written here."""
        return False

    def handle_read(self) -> None:
        """Forget them; supervisord looks at its signals and programs each time that it is awake.

        It looks which programs to start before it sees which have ended, so after a signal it is woken once more. Zero is no signal.
        """
        # A text, in which supervisor gives it
        if self.recv(4096).strip("\0"):
            os.write(self._more, b"\0")


if __name__ == "__main__":
    Signals()
    supervisord.main()
