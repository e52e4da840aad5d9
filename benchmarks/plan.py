# SPDX-License-Identifier: Apache-2.0
"""The parts of measure.py in their order: names, commands, seconds without which none begins."""

import itertools
import json
import pathlib
import shlex
import statistics
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).parent
_WORK = "WORK"  # in commands: the directory for what is needed meanwhile
_FOLD_STEPS, _FOLD_EVALUATIONS = 5600, 8  # of 200 epochs on BP4D, eight clips a step


class Part(NamedTuple):
    """A command, and what it leaves.

    Attributes:
      name: of the part.
      words: of the command, `mdhr` or a program of benchmarks/ first.
      least: seconds; with less left it is not begun.
      variables: of its environment, beside those that are set.
      read: reads what it has found, from the directory for such things.
      grows: whether that is worth reading before it has ended.
    """

    name: str
    words: tuple[str, ...]
    least: float
    variables: Mapping[str, str]
    read: Callable[[pathlib.Path], Any]
    grows: bool = False

    @property
    def shown(self) -> str:
        """The command as one would type it."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        first, *others = self.words
        program = first if first == "mdhr" else f"python benchmarks/{first}"
        return " ".join([*variables, program, shlex.join(others)])

    def command(self, work: pathlib.Path) -> list[str]:
        """The command as it is run here."""
        first, *others = self.words
        program = ["-m", "mdhr_jax.cli"] if first == "mdhr" else [str(HERE / first)]
        return [sys.executable, *program, *(word.replace(_WORK, str(work)) for word in others)]


class Size(NamedTuple):
    """How large everything is.

    Attributes:
      nets: words that name a configuration of each backbone.
      narrow: of a net that compiles quickly.
      beside: of side_by_side.py, for each backbone.
      golden: files of golden vectors.
      trained: those of which training is checked, too.
      windows: whose median counts.
      many: clips scored at once.
      growth: clips of training steps.
      pictures: frames and pixels of the set that inputs are read from.
      fold: frames of the set that is trained on, and words of that training.
      share: of the least seconds of parts, which are a GPU's.
    """

    nets: Mapping[str, tuple[str, ...]]
    narrow: tuple[str, ...]
    beside: Mapping[str, tuple[str, ...]]
    golden: tuple[str, ...]
    trained: tuple[str, ...]
    windows: int
    many: int
    growth: tuple[int, ...]
    pictures: tuple[int, int]
    fold: tuple[int, tuple[str, ...]]
    share: float


_GOLDEN = ("BP4D_resnet_b1t8k2", "BP4D_swin_transformer_b1t8k2")
_FAST = "--config.precision=bfloat16"
_NARROW = (
    *("--config=bp4d_resnet50", "--config.model.backbone=resnet_narrow"),
    *("--config.model.features=16", "--config.image_size=64", "--config.clip_length=4"),
    *("--config.batch_size=2", "--config.eval_batch_size=2"),
)
_TWO, _ONE = ("--variants=released,tuned",), ("--variants=released",)
_BRIEF = ("--clips=1", "--eval_clips=2", "--batches=1", "--rounds=1", "--seconds=0.1")
_BESIDE_NARROW = (
    *("--backbones=resnet_narrow", "--features=16", "--image_size=64", "--frames=4"),
    *(*_BRIEF, "--precision=float32"),
)
_SHORT = (*_NARROW, "--config.epochs=0.", "--config.steps=8", "--config.eval_every=4")

SIZES = {
    "full": Size(
        nets={
            "resnet50": ("--config=bp4d_resnet50", _FAST),
            "swin_b": ("--config=bp4d_swinb", _FAST),
        },
        narrow=("--config=quickstart", _FAST),
        beside={
            "resnet50": ("--backbones=resnet50", *_TWO),
            "swin_b": ("--backbones=swin_b", *_TWO),
        },
        golden=_GOLDEN,
        trained=_GOLDEN,
        windows=5,
        many=32,
        growth=(1, 2, 4, 16, 32, 64),
        pictures=(10_000, 256),
        fold=(98_000, ("--config=bp4d_resnet50", _FAST)),
        share=1.0,
    ),
    "small": Size(
        nets={
            "resnet50": _NARROW,
            "swin_b": (
                *("--config=bp4d_swinb", "--config.model.features=16", "--config.clip_length=2"),
                *("--config.batch_size=1", "--config.eval_batch_size=1"),
            ),
        },
        narrow=_NARROW,
        beside={
            "resnet50": (*_BESIDE_NARROW, *_TWO),
            "swin_b": ("--backbones=swin_b", "--features=16", "--frames=2", *_BRIEF, *_ONE),
        },
        golden=_GOLDEN,
        trained=("loss",),
        windows=1,
        many=4,
        growth=(1,),
        pictures=(2_000, 96),
        fold=(2_000, _SHORT),
        share=0.2,
    ),
}
SIZES["tiny"] = SIZES["small"]._replace(
    nets={"resnet50": _NARROW},
    beside={"resnet50": (*_BESIDE_NARROW, *_ONE)},
    golden=("loss",),
    pictures=(1_312, 64),
    fold=(1_312, _SHORT),
    share=0.0,
)


def parts(name: str, torch: str | None = None) -> list[Part]:
    """Those of a size, in order of importance.

    Args:
      name: key of `SIZES`.
      torch: a Python that has PyTorch, if it is another one.
    """
    size = SIZES[name]
    found = [*_first(size)]
    for net in size.nets:
        found += _programs(size, net, torch)
    found += [*_around(size), *_fold(size), *_rest(size)]
    return [_at(size, part) for part in found]


def _at(size: Size, part: Part) -> Part:
    """With the seconds and, if it is one of mdhr bench without its own, the windows of a size."""
    words = part.words
    if "bench" in words and "--windows=1" not in words:
        words += (f"--windows={size.windows}",)
    return part._replace(words=words, least=size.share * part.least)


def _first(size: Size) -> Iterator[Part]:
    (net, *_) = size.nets.values()
    yield _bench("device", 10, "machine", *net)
    for golden in size.golden:
        yield _verify(f"golden-{golden}", 20, golden, "--notraining")
    windows = ("--windows=1", "--config.deterministic=true")
    yield _bench("deterministic", 20, "train", *size.narrow, *windows)


def _programs(size: Size, net: str, torch: str | None) -> Iterator[Part]:
    """Training and scoring with a backbone, ours alone and then beside PyTorch."""
    words = size.nets[net]
    yield _bench(f"train-{net}", 45, "train", *words)
    yield _bench(f"infer-{net}", 20, "infer", *words, f"--config.eval_batch_size={size.many}")
    yield _bench(f"clip-{net}", 20, "infer", *words, "--config.eval_batch_size=1")
    python = [f"--torch={torch}"] if torch else []
    name = f"beside-{net}"
    command = ("side_by_side.py", *size.beside[net], *python, f"--out={_WORK}/{name}.json")
    yield Part(name, command, 60, {}, _json(name), grows=True)


def _around(size: Size) -> Iterator[Part]:
    """What surrounds the step: inputs, more and fewer clips, checkpoints."""
    (net, words), *_ = size.nets.items()
    frames, pixels = size.pictures
    yield _noise("inputs-set", 10, frames, pixels)
    yield _bench("inputs", 40, "data", *words, f"--config.data={_WORK}/inputs-set")
    for clips in size.growth:
        yield _clips(net, words, clips)
    yield _bench("saving", 30, "saving", *words)


def _clips(net: str, words: tuple[str, ...], clips: int) -> Part:
    part = _bench(f"train-{net}-{clips}", 35, "train", *words, f"--config.batch_size={clips}")
    return part._replace(variables={"XLA_CLIENT_MEM_FRACTION": "0.95"})  # 64 clips take most of it


def _fold(size: Size) -> Iterator[Part]:
    frames, words = size.fold
    yield _noise("fold-set", 20, frames, size.pictures[1])
    places = (f"--config.data={_WORK}/fold-set", f"--workdir={_WORK}/fold")
    command = ("mdhr", "train", *words, *places, "--config.input=resident")
    yield Part("fold", command, 60, {}, fold_facts)


def _rest(size: Size) -> Iterator[Part]:
    """Traces, XLA's flags of launch/gpus.sh, what else is to be known."""
    for net, words in size.nets.items():
        name = f"trace-{net}"
        trace = f"--profile={_WORK}/{name}"
        yield _bench(name, 30, "train", *words, "--windows=1", trace)
    (net, words), *others = size.nets.items()
    for name, value in FLAGS.items():
        part = _bench(f"flag-{name}", 45, "train", *words)
        yield part._replace(variables={name: value})
    for other, its_words in others:
        for clips in size.growth:
            yield _clips(other, its_words, clips)
    for golden in size.trained:
        yield _verify(f"training-{golden}", 60, golden)


FLAGS = {  # of launch/gpus.sh
    "XLA_CLIENT_MEM_FRACTION": "0.9",
    "JAX_OPTIMIZATION_LEVEL": "O1",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
}


def _bench(name: str, least: float, what: str, *words: str) -> Part:
    command = ("mdhr", "bench", what, *words, f"--json={_WORK}/{name}.json")
    return Part(name, command, least, {}, _json(name))


def _verify(name: str, least: float, golden: str, *words: str) -> Part:
    command = ("mdhr", "verify", "--golden=tests/golden", f"--only={golden}", *words)
    return Part(name, command, least, {}, lambda work: None)


def _noise(name: str, least: float, frames: int, pixels: int) -> Part:
    words = (f"--out={_WORK}/{name}", f"--frames={frames}", f"--size={pixels}")
    return Part(name, ("noise.py", *words), least, {}, lambda work: None)


def _json(name: str) -> Callable[[pathlib.Path], Any]:
    return lambda work: json.loads((work / f"{name}.json").read_text())


def fold_facts(work: pathlib.Path) -> dict[str, float]:
    """How far a training has come, and how long a whole fold of BP4D takes at this pace.

    Raises:
      ValueError: it has not taken two steps.
    """
    begun = (work / "fold.begun").stat().st_mtime
    events = list(_scalars(work / "fold/tensorboard"))
    pairs = list(itertools.pairwise(events))
    steps = [end[0] - start[0] for start, end in pairs if start[1] == end[1] == "train/loss"]
    evaluations = [end[0] - start[0] for start, end in pairs if end[1] == "eval/mean_f1"]
    if not steps:
        raise ValueError("no pair of steps")
    cold, step = events[0][0] - begun, statistics.mean(steps)
    evaluation = statistics.median(evaluations) if evaluations else 0.0
    return {
        "steps": sum(kind == "train/loss" for _, kind in events),
        "evaluations": len(evaluations),
        "seconds": events[-1][0] - begun,
        "until_first_step": cold,
        "step_seconds": step,
        "evaluation_seconds": evaluation,
        "fold_seconds": cold + _FOLD_STEPS * step + _FOLD_EVALUATIONS * evaluation,
    }


def _scalars(folder: pathlib.Path) -> Iterator[tuple[float, str]]:
    """When TensorBoard was told of each step and each evaluation."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at + 12 < len(data):  # length, its checksum, event, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                if value.tag in ("train/loss", "eval/mean_f1"):
                    yield event.wall_time, value.tag
