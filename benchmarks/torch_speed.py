# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of side_by_side.py: the twin as released or tuned, timed on request.

    python torch_speed.py FOLDER VARIANT

FOLDER holds `initial.pth`, `facts.json` and `clips.npz`, see `sides.prepare`.
"""

import contextlib
import functools
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator

import answers
import numpy as np
import torch
import torch_mdhr
import variants

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN, STD = (torch.tensor(x) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
LARGE, SMALL = (
    (8192, 2**28),
    (2048, 2**25),
)  # side of matrices, numbers in a copy; as bench.roofline


def cropped(frames: torch.Tensor, rows: np.ndarray, size: int) -> torch.Tensor:
    """Clips (b, t, h, w, 3), each cut and mirrored by the first three values of its row."""
    clips = []
    for clip, (x, y, flip) in zip(frames, rows[:, :3].astype(int).tolist(), strict=True):
        clip = clip[:, y : y + size, x : x + size]
        clips.append(clip.flip(2) if flip else clip)
    return torch.stack(clips)


def coloured(frames: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and saturation, factors (b, 3) of clips (b, t, h, w, 3); float32."""
    brightness, contrast, saturation = factors.T[:, :, None, None, None, None]
    x = (frames.float() * brightness).clamp(0, 255)
    grey = _grey(x).mean((2, 3, 4), keepdim=True)
    x = (grey + contrast * (x - grey)).clamp(0, 255)
    grey = _grey(x)
    return (grey + saturation * (x - grey)).clamp(0, 255)


def _grey(x: torch.Tensor) -> torch.Tensor:
    return (x * torch.tensor((0.299, 0.587, 0.114), device=x.device)).sum(-1, keepdim=True)


def normalised(frames: torch.Tensor) -> torch.Tensor:
    """Clips (b, t, h, w, 3) in grey levels to network input (b, t, 3, h, w)."""
    x = (frames / 255 - MEAN.to(frames.device)) / STD.to(frames.device)
    return x.permute(0, 1, 4, 2, 3)


def f1(tp: torch.Tensor, fp: torch.Tensor, fn: torch.Tensor) -> list[float]:
    """Per AU, as a fraction."""
    return (2 * tp / (2 * tp + fp + fn + 1e-20)).tolist()


def counted_there(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Hits, false alarms and misses per AU (3, n), counted on the device."""
    predicted, active = scores >= 0.5, labels == 1
    pairs = (predicted & active, predicted & ~active, ~predicted & active)
    return torch.stack([pair.sum((0, 1)) for pair in pairs])


def counted_in_python(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same, number by number, as the release does it: each comparison waits for the device."""
    predicted = (scores >= 0.5).long().flatten(0, 1)
    counts = torch.zeros(3, scores.shape[-1], dtype=torch.long)
    for said, known in zip(predicted, labels.flatten(0, 1), strict=True):
        for au in range(len(said)):
            if known[au] == 1 and said[au] == 1:
                counts[0, au] += 1
            elif known[au] == 0 and said[au] == 1:
                counts[1, au] += 1
            elif known[au] == 1 and said[au] == 0:
                counts[2, au] += 1
    return counts


def wait(result: object) -> None:
    """Until the device has done all it was asked to."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def about() -> dict[str, str]:
    """What this runs on."""
    cuda = DEVICE.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else "cpu"
    return {
        "device": name,
        "kind": "gpu" if cuda else "cpu",
        "versions": f"torch {torch.__version__}",
    }


def machine(dtype: torch.dtype) -> dict[str, float]:
    """Operations per second of a large product, bytes per second of a large copy."""
    side, count = LARGE if DEVICE.type == "cuda" else SMALL
    square = torch.randn(side, side, dtype=dtype, device=DEVICE)  # as in roofline.machine
    line = torch.ones(count).to(DEVICE)
    product, copy = (
        statistics.median(answers.seconds_per_call(run, wait, 5, 1.0))
        for run in (lambda: square @ square, lambda: line + 1)
    )
    return {"flops": 2 * side**3 / product, "bandwidth": 2 * line.nbytes / copy}


class Peer:
    """The twin with its weights, optimizer and clips."""

    def __init__(self, folder: pathlib.Path, variant: variants.Variant):
        self.facts = facts = json.loads((folder / "facts.json").read_text())
        self.variant = variant
        self.layout = torch_mdhr.LAYOUTS[facts["layout"]]
        self.bfloat16 = variant.autocast and facts["precision"] == "bfloat16"
        torch.set_num_threads(facts["threads"])
        torch.backends.cudnn.deterministic = not variant.free
        torch.backends.cudnn.benchmark = variant.free
        torch.set_float32_matmul_precision("high" if variant.free else "highest")
        backbone = torch_mdhr.BACKBONES[facts["backbone"]]()
        model = torch_mdhr.MDHR(self.layout, backbone, features=facts["features"], k=facts["k"])
        model.load_state_dict(torch.load(folder / "initial.pth")["state_dict"], strict=True)
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.model = model.to(DEVICE, memory_format=layout)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=facts["learning_rate"],
            weight_decay=facts["weight_decay"],
            fused=variant.fused or None,
        )
        wrap = functools.partial(torch.compile, dynamic=False) if variant.compiled else lambda x: x
        self.losses, self.scores = wrap(self._losses), wrap(self._scores)
        self._take(dict(np.load(folder / "clips.npz")))

    def _take(self, clips: dict[str, np.ndarray]) -> None:
        """Clips as a loader would hand them over, in the host's memory."""
        self.rows = clips["augment"]
        self.factors, self.labels = torch.tensor(self.rows[:, 3:6]), torch.tensor(clips["labels"])
        self.frames = torch.from_numpy(clips["frames"])
        if not self.variant.on_device:
            self.frames = normalised(self._cut(self.frames).float()).contiguous()
        elif DEVICE.type == "cuda":
            self.frames = self.frames.pin_memory()

    def train_step(self) -> torch.Tensor:
        """One step on `clips` clips."""
        losses = self.losses(*self._batch(self.model.train()))
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        if not self.variant.on_device:
            losses["wa"].item(), losses["ce"].item()
        return losses["loss"]

    def clips(self) -> torch.Tensor:
        """Scores of `eval_clips` clips."""
        return self._scored(slice(self.facts["eval_clips"]))

    def one_clip(self) -> torch.Tensor:
        """Scores of one clip, in the host's memory."""
        return self._scored(slice(1)).cpu()

    def validation(self) -> list[float]:
        """F1 of every AU over `batches` batches of `clips` clips."""
        count = counted_there if self.variant.on_device else counted_in_python
        size = self.facts["clips"]
        totals = 0
        for _ in range(self.facts["batches"]):
            totals = totals + count(self._scored(slice(size)), self._moved(self.labels[:size]))
        return f1(*totals.double().cpu())

    def check(self) -> dict[str, object]:
        """Scores of one clip and the loss of the first step in float32, and the scores as timed."""
        state = {name: x.clone() for name, x in self.model.state_dict().items()}
        timed = self.one_clip()
        with self._exactly():
            scores = self._scored(slice(1), self._scores)
            with torch.no_grad():
                loss = self._losses(*self._batch(self.model.train()))["loss"]
        self.model.load_state_dict(state)  # without what the norms have learned
        return {"scores": scores.tolist(), "timed": timed.tolist(), "loss": loss.item()}

    def machine(self) -> dict[str, float]:
        """As `machine`, in the precision asked for."""
        return machine(getattr(torch, self.facts["precision"]))

    @torch.no_grad()
    def _scored(self, clips: slice, scores: Callable | None = None) -> torch.Tensor:
        self.model.eval()
        frames = self._moved(self.frames[clips])
        if self.variant.on_device:
            frames = self._cut(frames)
        return (scores or self.scores)(frames)

    def _batch(self, model: torch_mdhr.MDHR) -> tuple[torch.Tensor, ...]:
        clips = slice(self.facts["clips"])
        frames, labels = self._moved(self.frames[clips]), self._moved(self.labels[clips])
        if self.variant.on_device:
            frames = self._cut(frames)
        return frames, self._moved(self.factors[clips]), labels

    def _cut(self, frames: torch.Tensor) -> torch.Tensor:
        return cropped(frames, self.rows[: len(frames)], self.facts["image_size"])

    def _moved(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(DEVICE, non_blocking=self.variant.on_device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bfloat16)

    def _losses(
        self, frames: torch.Tensor, factors: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        if self.variant.on_device:
            frames = normalised(coloured(frames, factors))
        with self._autocast():
            outputs = self.model(frames)
        wide = {name: x.float() for name, x in outputs.items() if name.startswith(("sc", "logit"))}
        weights = torch.ones(self.layout.aus, device=frames.device)
        return torch_mdhr.loss(wide, labels.flatten(0, 1), weights, self.layout)

    def _scores(self, frames: torch.Tensor) -> torch.Tensor:
        if self.variant.on_device:
            frames = normalised(frames.float())
        with self._autocast():
            scores = self.model(frames)["scores"]
        return scores.float().unflatten(0, frames.shape[:2])

    @contextlib.contextmanager
    def _exactly(self) -> Iterator[None]:
        """In float32 without TF32, all paths kept, as JAX in float32."""
        paths = [x for x in self.model.modules() if isinstance(x, torch_mdhr.DropPath)]
        rates, bfloat16 = [path.rate for path in paths], self.bfloat16
        precision = torch.get_float32_matmul_precision()
        for path in paths:
            path.rate = 0.0
        self.bfloat16 = False
        torch.set_float32_matmul_precision("highest")
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
        torch.set_float32_matmul_precision(precision)
        self.bfloat16 = bfloat16
        for path, rate in zip(paths, rates, strict=True):
            path.rate = rate


def main() -> None:
    """Answers requests."""
    folder, name = sys.argv[1:]
    peer = Peer(pathlib.Path(folder), variants.VARIANTS[name])
    programs = (peer.train_step, peer.clips, peer.one_clip, peer.validation)
    facts = (about, peer.machine, peer.check)
    answers.serve(
        {function.__name__: function for function in programs},
        wait,
        {function.__name__: function for function in facts},
    )


if __name__ == "__main__":
    main()
