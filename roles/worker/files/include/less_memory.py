"""Have a worker hold less memory.

To import a module takes more memory than the module. What is free afterwards goes back to the system once: a tenth of a process.
Python's garbage collector marks every object that it looks at, and with that copies the page that it is on, where a child shares it with
its parent; what the parent has imported, no child has to collect.

Celery imports this before the pool is made (`--include`).
"""

import ctypes
import gc
from typing import Any

from celery.signals import worker_before_create_process, worker_ready


@worker_ready.connect
def give_back(**_options: Any) -> None:
    """Give free memory back to the system. Only glibc keeps so much of it that it has a function for that."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


@worker_before_create_process.connect
def before_a_child(**_options: Any) -> None:
    """Keep the collector from what is there already, without what nobody needs any more, also of what was kept before."""
    gc.unfreeze()
    gc.collect()
    give_back()
    gc.freeze()
