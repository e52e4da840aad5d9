# SPDX-License-Identifier: Apache-2.0
"""The PyTorch twin as a process that trains and scores what `twin.py` sends it.

A request is a line of JSON, `{"rate": 1e-4, "shapes": [...]}`, and the bytes of its arrays: images
(b, t, h, w, 3) float32 and, with a rate, labels (b, t, n) int64. With a rate the answer is the loss
before the step, without one the scores (b, t, n); both as bytes of the run's type.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import torch
import torch_mdhr

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Training:
    """A model with its optimizer, from `initial.pth` and `facts.json` in a folder."""

    def __init__(self, folder: pathlib.Path, dtype: torch.dtype):
        facts = json.loads((folder / "facts.json").read_text())
        self.layout = torch_mdhr.LAYOUTS[facts["layout"]]
        backbone = torch_mdhr.ResNet(tuple(facts["depths"]), facts["width"])
        model = torch_mdhr.MDHR(self.layout, backbone, features=facts["features"], k=facts["k"])
        model.load_state_dict(torch.load(folder / "initial.pth")["state_dict"], strict=True)
        self.model = model.to(DEVICE, dtype)
        self.dtype = dtype
        self.class_weights = torch.tensor(facts["class_weights"], dtype=dtype, device=DEVICE)
        self.region_weight = facts["auxiliary_loss_weight"]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=0.0,  # every step brings its own
            betas=tuple(facts["betas"]),
            eps=facts["epsilon"],
            weight_decay=facts["weight_decay"],
        )

    def step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> torch.Tensor:
        """Trains on a batch; the loss before."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        outputs = self.model.train()(self._clips(images))
        wanted = torch.tensor(labels, device=DEVICE).flatten(0, 1)
        parts = torch_mdhr.loss(
            outputs, wanted, self.class_weights, self.layout, self.region_weight
        )
        self.optimizer.zero_grad()
        parts["loss"].backward()
        self.optimizer.step()
        return parts["loss"].detach()

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> torch.Tensor:
        """Scores of every frame."""
        return self.model.eval()(self._clips(images))["scores"]

    def _clips(self, images: np.ndarray) -> torch.Tensor:
        return torch.tensor(images, device=DEVICE).to(self.dtype).permute(0, 1, 4, 2, 3)


def requests() -> Iterator[tuple[float | None, list[np.ndarray]]]:
    """Rates and arrays from standard input until it ends."""
    source = sys.stdin.buffer
    for line in iter(source.readline, b""):
        header = json.loads(line)
        arrays = []
        for shape, dtype in zip(header["shapes"], (np.float32, np.int64), strict=False):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays.append(np.frombuffer(source.read(size), dtype).reshape(shape))
        yield header["rate"], arrays


def main() -> None:
    """Answers requests."""
    folder, dtype = sys.argv[1:]
    training = Training(pathlib.Path(folder), getattr(torch, dtype))
    for rate, arrays in requests():
        answer = training.scores(*arrays) if rate is None else training.step(*arrays, rate)
        sys.stdout.buffer.write(answer.cpu().numpy().tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
