"""Leave out of the log that a task was received, retried or done: two lines for each task, which cost more than a short task itself.

Errors are logged all the same. What has become of a task, Flower shows.
"""

import logging

for name in ("celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(name).setLevel(logging.WARNING)
