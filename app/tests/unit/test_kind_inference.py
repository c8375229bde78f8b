"""The kind `inference`, with the model as it is shipped."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from pydantic import ValidationError

from fba_app.kinds.inference import BATCH, METADATA, InferenceArguments, _load, _session, inference
from fba_app.tasks import progress
from fba_app.tasks.context import CancelledError, TaskContext
from fba_app.tasks.registry import CPU_QUEUE, KINDS

SAMPLES: list[dict[str, Any]] = METADATA["samples"]
IMAGES: list[list[float]] = [sample["image"] for sample in SAMPLES]
BLANK = [0.0] * 64


@pytest.fixture(autouse=True)
def on_progress(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], None]], None]:
    """Where a test says what shall happen when the task reports; otherwise, nothing does."""
    calls: list[Callable[[float], None]] = []

    def write(task_id: UUID, percent: float, message: str) -> None:
        del task_id, message
        for call in calls:
            call(percent)

    monkeypatch.setattr(progress, "write", write)
    return calls.append


def test_it_reads_images_that_it_was_not_trained_with() -> None:
    result = inference(TaskContext(uuid4()), InferenceArguments(images=IMAGES))
    right = [each.digit == sample["label"] for each, sample in zip(result.predictions, SAMPLES, strict=True)]
    assert sum(right) / len(right) > 0.95
    assert METADATA["accuracy"] > 0.95
    assert all(0.1 <= each.probability <= 1 for each in result.predictions)
    assert result.model == f"{METADATA['name']}/{METADATA['version']}"


def test_an_image_is_read_the_same_in_any_batch() -> None:
    images = (IMAGES * 3)[: 2 * BATCH + 1]
    many = inference(TaskContext(uuid4()), InferenceArguments(images=images)).predictions
    again = inference(TaskContext(uuid4()), InferenceArguments(images=images)).predictions
    alone = inference(TaskContext(uuid4()), InferenceArguments(images=images[-1:])).predictions
    assert many == again
    assert len(many) == len(images)
    assert many[-1].digit == alone[0].digit
    assert many[-1].probability == pytest.approx(alone[0].probability, rel=1e-5)


def test_it_reports_and_can_be_cancelled_between_batches(
    on_progress: Callable[[Callable[[float], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = TaskContext(uuid4())
    seen: list[float] = []
    # Each report reaches whoever watches, not only two in a second.
    monkeypatch.setattr("fba_app.tasks.context.time.monotonic", iter(range(1000)).__next__)

    def cancel_in_the_middle(percent: float) -> None:
        seen.append(percent)
        if percent >= 50:
            context.stop(CancelledError)

    on_progress(cancel_in_the_middle)
    with pytest.raises(CancelledError):
        inference(context, InferenceArguments(images=[BLANK] * (4 * BATCH)))
    assert seen == [0.0, 25.0, 50.0]


def test_the_model_is_loaded_once_however_many_ask_for_it() -> None:
    _load.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        sessions = {id(session) for session in threads.map(lambda _: _session(), range(8))}
    assert len(sessions) == 1
    assert _load.cache_info().misses == 1


@pytest.mark.parametrize(
    "images",
    [
        [],
        [BLANK] * 1001,
        [BLANK[:-1]],
        [[*BLANK, 0.0]],
        [[17.0, *BLANK[1:]]],
        [[-0.1, *BLANK[1:]]],
        [[float("nan"), *BLANK[1:]]],
        [["1", *BLANK[1:]]],
        [[None, *BLANK[1:]]],
        BLANK,
        "images",
    ],
)
def test_what_is_not_an_image_is_refused(images: object) -> None:
    with pytest.raises(ValidationError):
        InferenceArguments.model_validate({"images": images})


@pytest.mark.parametrize("shape", [(1, 63), (1, 65), (64,), (1, 8, 8)])
def test_the_model_itself_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(Exception, match=r"(?i)invalid (rank|dimensions)|INVALID_ARGUMENT"):
        _session().run(None, {"images": np.zeros(shape, np.float32)})


def test_the_libraries_are_loaded_by_those_who_use_them() -> None:
    program = (
        "import sys, fba_app.kinds.email, fba_app.kinds.inference, fba_app.kinds.report, fba_app.kinds.sleep\n"
        "print({'numpy', 'onnxruntime', 'pandas', 'reportlab', 'xlsxwriter'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "set()"


def test_the_kind() -> None:
    assert KINDS["inference"].queue == CPU_QUEUE
    # What the documentation shows can be sent as it is.
    InferenceArguments.model_validate({"images": InferenceArguments.model_fields["images"].examples[0]})  # type: ignore[index]
