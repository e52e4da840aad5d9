# SPDX-License-Identifier: Apache-2.0
"""The PyTorch side of same_training.py: trains the twin on prepared batches, prints each loss.

.venv-torch/bin/python benchmarks/torch_training.py FOLDER float64
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch_mdhr


def train(folder: pathlib.Path, dtype: torch.dtype) -> list[float]:
    """The loss before every step, from `initial.pth` over the batches of `folder`."""
    facts = json.loads((folder / "facts.json").read_text())
    layout = torch_mdhr.LAYOUTS[facts["layout"]]
    backbone = torch_mdhr.ResNet(tuple(facts["depths"]), facts["width"])
    model = torch_mdhr.MDHR(layout, backbone, features=facts["features"], k=facts["k"])
    model.load_state_dict(torch.load(folder / "initial.pth")["state_dict"], strict=True)
    model.to(dtype).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=facts["learning_rate"],
        betas=tuple(facts["betas"]),
        eps=facts["epsilon"],
        weight_decay=facts["weight_decay"],
    )
    images, labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")
    )
    class_weights = torch.tensor(facts["class_weights"], dtype=dtype)
    losses = []
    for step, (clips, wanted) in enumerate(zip(images, labels, strict=True)):
        rate = facts["learning_rate"] * (1 + math.cos(math.pi * step / len(images))) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        outputs = model(torch.tensor(clips, dtype=dtype).permute(0, 1, 4, 2, 3))
        parts = torch_mdhr.loss(
            outputs,
            torch.tensor(wanted).flatten(0, 1),
            class_weights,
            layout,
            facts["region_loss_weight"],
        )
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    return losses


if __name__ == "__main__":
    print(json.dumps(train(pathlib.Path(sys.argv[1]), getattr(torch, sys.argv[2]))))
