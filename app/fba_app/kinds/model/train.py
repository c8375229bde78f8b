# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.7,<2", "skl2onnx>=1.19,<2", "onnxruntime>=1.23,<2"]
# ///
"""Train the model of the kind `inference`, and write it beside this file: `uv run fba_app/kinds/model/train.py`.

The data are scikit-learn's own: 1797 handwritten digits, 8 by 8 pixels of 0 to 16. A quarter of them is held out of the
training, and the accuracy is that of the written file on this quarter.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME, VERSION = "digits", "1"
"""Raise the version with every change of the model."""

SEED = 0
SAMPLES = 100
"""How many of the held-out images are written beside the model, to try it with."""

HERE = Path(__file__).parent


def _json(metadata: dict[str, Any], samples: list[dict[str, Any]]) -> str:
    # A line for each sample: neither a line of all, nor a line for each number.
    lines = ",\n".join(f"  {json.dumps(sample)}" for sample in samples)
    return f'{json.dumps(metadata)[:-1]}, "samples": [\n{lines}\n]}}\n'


def main() -> None:
    """Train, measure and write."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    classifier = make_pipeline(StandardScaler(), MLPClassifier((64,), alpha=0.1, max_iter=1000, random_state=SEED))
    classifier.fit(train_images, train_labels)

    model = to_onnx(
        classifier,
        initial_types=[("images", FloatTensorType([None, 64]))],
        options={"zipmap": False},
        target_opset=17,
    ).SerializeToString()
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    digits, _ = session.run(None, {"images": test_images.astype(np.float32)})

    metadata = {
        "name": NAME,
        "version": VERSION,
        "accuracy": round(float((digits == test_labels).mean()), 4),
        "trained_on": len(train_images),
        "held_out": len(test_images),
    }
    samples = [
        {"label": int(label), "image": image.astype(int).tolist()}
        for image, label in zip(test_images[:SAMPLES], test_labels[:SAMPLES], strict=True)
    ]
    (HERE / "digits.onnx").write_bytes(model)
    (HERE / "digits.json").write_text(_json(metadata, samples), encoding="utf-8")
    print(f"{metadata['accuracy']:.2%} of {len(test_images)} held-out images, {len(model)} bytes")


if __name__ == "__main__":
    main()
