"""Let the children of a prefork pool share more of their parent's memory.

Python's garbage collector marks every object that it looks at, and with that copies the page that it is on. What the parent has imported,
no child has to collect.

Celery imports this before the pool is made (`--include`).
"""

import gc
from typing import Any

from celery.signals import worker_before_create_process


@worker_before_create_process.connect
def freeze(**_options: Any) -> None:
    """Keep the collector from what is there already."""
    gc.freeze()
