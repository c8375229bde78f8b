"""The tasks of the bench in the stack's own application, where `prepare.yml` puts this module as `fba_app.bench`."""

from fba_app import measured
from fba_app.celery import app
from fba_app.tasks.registry import CPU_QUEUE, IO_QUEUE

for name, function in measured.TASKS.items():
    app.task(function, name=name, queue=CPU_QUEUE if name == "cpu" else IO_QUEUE)
