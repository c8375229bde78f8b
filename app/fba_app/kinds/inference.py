"""The kind `inference`: a small neural network reads handwritten digits."""

import json
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import CPU_QUEUE, kind
from fba_app.types import Model

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL = Path(__file__).parent / "model" / "digits.onnx"
METADATA: dict[str, Any] = json.loads(MODEL.with_suffix(".json").read_text(encoding="utf-8"))
"""What `model/train.py` says of the model: its `name`, `version`, held-out `accuracy`, and `samples` to try it with."""

BATCH = 32
"""Images between two moments in which the task can be cancelled."""

PIXELS = 64

_lock = Lock()

Brightness = Annotated[float, Field(strict=True, ge=0, le=16)]
Image = Annotated[
    list[Brightness],
    Field(min_length=PIXELS, max_length=PIXELS, description="8 rows of 8 pixels, from 0 for paper to 16 for ink."),
]


class InferenceArguments(Model):
    """The images to read."""

    images: list[Image] = Field(min_length=1, max_length=256, examples=[[METADATA["samples"][0]["image"]]])


class Prediction(Model):
    """What an image shows."""

    digit: int = Field(ge=0, le=9)
    probability: float = Field(ge=0, le=1, description="How sure the model is.")


class InferenceResult(Model):
    """What the images show, in their order."""

    predictions: list[Prediction] = Field(examples=[[{"digit": 2, "probability": 0.998}]])
    model: str = Field(description="The model's name and version.", examples=["digits/1"])


@lru_cache
def _load() -> "InferenceSession":
    # Not at the top: a worker that is asked for no inference shall not spend memory on it.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The worker has a process for each core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def _session() -> "InferenceSession":
    with _lock:  # else two threads could both find it missing
        return _load()


@kind("inference", queue=CPU_QUEUE, time_limit=120)
def inference(context: TaskContext, arguments: InferenceArguments) -> InferenceResult:
    """Read the digits in images of 8 by 8 pixels."""
    import numpy as np

    session = _session()
    predictions: list[Prediction] = []
    for start in range(0, len(arguments.images), BATCH):
        context.progress(100 * start / len(arguments.images), f"{start} of {len(arguments.images)} images")
        batch = np.array(arguments.images[start : start + BATCH], dtype=np.float32)
        digits, probabilities = session.run(None, {"images": batch})
        predictions += [
            # In single precision, a sum of ten parts can be a little more than 1.
            Prediction(digit=int(digit), probability=min(1.0, float(of_digits[digit])))
            for digit, of_digits in zip(digits, probabilities, strict=True)
        ]
    context.progress(100, "done")
    return InferenceResult(predictions=predictions, model=f"{METADATA['name']}/{METADATA['version']}")
