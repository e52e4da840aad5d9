# SPDX-License-Identifier: Apache-2.0
"""The twin of the GraphAU family trained on given batches, every path of Swin kept.

    python torch_graphau_training.py GIVEN.npz AFTER.npz float64

GIVEN holds `release`, `backbone`, `stage`, `features` and `edge_weight` (lambda), initial weights
as `state.NAME`, `class_weights` (outputs), and of every step `pictures` (steps, b, h, w, 3),
normalised, `labels` (steps, b, outputs) and `rates` (steps). AFTER gets `loss`, `wa` and, where
there are edges, `edge` (steps), before every step, and `state.NAME` after the last.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
import torch_graphau
import torch_mdhr

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STATE = "state."


def model(given: dict[str, np.ndarray], dtype: torch.dtype) -> torch_graphau.GraphAU:
    """The model with its initial weights."""
    network = torch_graphau.GraphAU(
        torch_graphau.RELEASES[given["release"].item()],
        torch_mdhr.BACKBONES[given["backbone"].item()](),
        stage=given["stage"].item(),
        features=given["features"].item(),
    )
    state = {
        name.removeprefix(STATE): torch.from_numpy(x)
        for name, x in given.items()
        if name.startswith(STATE)
    }
    network.load_state_dict(state, strict=True)
    for module in network.modules():
        if isinstance(module, torch_mdhr.DropPath):
            module.rate = 0.0
    return network.to(DEVICE, dtype)


def train(
    network: torch_graphau.GraphAU, given: dict[str, np.ndarray], dtype: torch.dtype
) -> Iterator[dict[str, float]]:
    """Takes the steps; the losses before each."""
    weights = torch.tensor(given["class_weights"], dtype=dtype, device=DEVICE)
    optimizer = torch_graphau.optimizer(network.train())
    for pictures, labels, rate in zip(
        given["pictures"], given["labels"], given["rates"].tolist(), strict=True
    ):
        for group in optimizer.param_groups:
            group["lr"] = rate
        outputs = network(torch.tensor(pictures, device=DEVICE).to(dtype).permute(0, 3, 1, 2))
        wanted = torch.tensor(labels, device=DEVICE)
        losses = torch_graphau.loss(outputs, wanted, weights, given["edge_weight"].item())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        yield {name: x.item() for name, x in losses.items()}


def main() -> None:
    """Trains."""
    source, target, name = sys.argv[1:]
    given, dtype = dict(np.load(source)), getattr(torch, name)
    network = model(given, dtype)
    rows = list(train(network, given, dtype))
    state = {STATE + name: x.cpu().numpy() for name, x in network.state_dict().items()}
    np.savez(target, **{name: [row[name] for row in rows] for name in rows[0]}, **state)


if __name__ == "__main__":
    main()
