"""Have a worker hold less memory.

To import a module takes more memory than the module. What is free afterwards goes back to the system once: a tenth of a process.
Python's garbage collector marks every object that it looks at, and with that copies the page that it is on, where a child shares it with
its parent; what the parent has imported, no child has to collect.

Celery imports this before the pool is made (`--include`).
"""

import ctypes
import gc
import threading
from typing import Any

from celery.signals import worker_before_create_process, worker_ready

# Whether the first children are there: the pool is made before the worker is ready
first_made = threading.Event()


@worker_ready.connect
def give_back(**_options: Any) -> None:
    """Give free memory back to the system. Only glibc keeps so much of it that it has a function for that."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


@worker_ready.connect
def ready(**_options: Any) -> None:
    """Note that the first children are there."""
    first_made.set()


@worker_before_create_process.connect
def before_a_child(**_options: Any) -> None:
    """Keep the collector from what is there already, without what nobody needs any more.

    Also of what was kept from it before, where the child takes another one's place. The first ones are made together, and to look at all
    of it for the second would copy what the first shares.
    """
    if first_made.is_set():
        gc.unfreeze()
    gc.collect()
    give_back()
    gc.freeze()
