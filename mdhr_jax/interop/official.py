# SPDX-License-Identifier: Apache-2.0
"""Official state_dicts, whole: a state with the release's slots in and out, backbones in.

Beside weights and statistics a state_dict holds what torch computes by itself: the number of
batches that a norm has seen, and two tables of Swin's windows. They are written, and checked where
they are found.
"""

import re
from collections.abc import Iterator

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.interop import names
from mdhr_jax.models import swin

PARTS = ("params", "batch_stats")
# Entries of ImageNet models that no model here has a use for.
CLASSIFIER = ("fc.weight", "fc.bias", "head.weight", "head.bias")
SHOWN = 7  # problems of a kind that are named
_BLOCK = re.compile(r"([Bb]ackbone\.layers\.(\d)\.blocks\.(\d+))\.norm1\.weight")
_SWIN_MAPS = {0: 56, 1: 28, 2: 14}  # stage -> width of the maps in which windows are shifted


def export(state: dict, rows: list[names.NameRule]) -> dict[str, np.ndarray]:
    """The official state_dict of a state (`step`, `params`, `batch_stats`), in its order.

    `rows` are the names of its model's entries.
    """
    pairs = [
        (entry, names.lookup(state[part], entry.path))
        for part in PARTS
        for entry in names.entries(state[part], rows)
    ]
    pairs.sort(key=lambda pair: pair[0].place)
    arrays = {entry.name: entry.read(np.asarray(array)) for entry, array in pairs}
    return dict(_with_computed(arrays, int(state["step"])))


def load(arrays: dict[str, np.ndarray], like: dict, rows: list[names.NameRule], what: str) -> dict:
    """The state that an official state_dict describes.

    Args:
      arrays: the state_dict.
      like: shapes of `params` and `batch_stats`, of the model with the release's slots or of its
        backbone alone.
      rows: the names of its model's entries.
      what: the model or backbone, in words.

    Returns:
      `step` (the batches that the norms have seen), `params`, `batch_stats`.

    Raises:
      InputError: missing, left-over, mis-shaped entries or other types; the first of each kind are
        named.
    """
    entries = {part: names.entries(like[part], rows) for part in PARTS}
    weights = {n: a for n, a in arrays.items() if n.rpartition(".")[2] not in names.COMPUTED}
    problems = [
        *names.problems([entry for part in PARTS for entry in entries[part]], weights),
        _wrong_types(weights),
        _wrong_tables(arrays, weights),
        _wrong_counters(arrays),
    ]
    if any(problems):
        raise InputError(_told(problems, what))
    seen = [int(array) for array in _counters(arrays).values()]
    return {"step": np.int32(max(seen, default=0))} | {
        part: names.from_official(like[part], entries[part], weights) for part in PARTS
    }


def _told(problems: list[list[str]], what: str) -> str:
    """The first of each kind of problems."""
    count = sum(map(len, problems))
    shown = [line for alike in problems for line in alike[:SHOWN]]
    shown += ["..."] if count > len(shown) else []
    return (
        f"{count} {'entry does' if count == 1 else 'entries do'} not fit {what}: "
        f"{'; '.join(shown)}; give a whole file of one such model"
    )


def backbone_alone(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The backbone's entries of an official file, of torchvision's ResNets or of Swin's authors."""
    prefix = re.compile("[Bb]ackbone[.]")
    own = {prefix.sub("Backbone.", n): a for n, a in arrays.items() if prefix.match(n)}
    return own or {f"Backbone.{n}": a for n, a in arrays.items() if n not in CLASSIFIER}


def _with_computed(arrays: dict[str, np.ndarray], batches: int) -> Iterator[tuple[str, np.ndarray]]:
    """The entries with the computed ones where torch puts them."""
    for name, array in arrays.items():
        block = _BLOCK.fullmatch(name)
        if block and int(block[2]) in _SWIN_MAPS and int(block[3]) % 2:
            yield f"{block[1]}.attn_mask", swin.shift_mask(_SWIN_MAPS[int(block[2])])
        yield name, array
        owner, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            yield f"{owner}.num_batches_tracked", np.array(batches, np.int64)
        if leaf == "relative_position_bias_table":
            index = swin.relative_position_index().astype(np.int64)
            yield f"{owner}.relative_position_index", index


def _wrong_types(weights: dict[str, np.ndarray]) -> list[str]:
    return [
        f"{name} has type {array.dtype}, expected float32"
        for name, array in weights.items()
        if array.dtype != np.float32
    ]


def _counters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: a for n, a in arrays.items() if n.rpartition(".")[2] == "num_batches_tracked"}


def _wrong_counters(arrays: dict[str, np.ndarray]) -> list[str]:
    """Numbers of batches that are no numbers of batches, or more than a step can count.

    Floats do: a state_dict may have been made narrower as a whole.
    """
    return [
        f"{name} is no count of batches below 2**31"
        for name, array in _counters(arrays).items()
        if array.shape or array.dtype.kind not in "iuf" or array % 1 or not 0 <= array < 2**31
    ]


def _wrong_tables(arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> list[str]:
    """Tables of other windows than ours: the same weights would mean another model."""
    expected = dict(_with_computed(weights, 0))
    return [
        f"{name} is another table than that of 7x7 windows on 224 pixels"
        for name, table in expected.items()
        if name.endswith(("relative_position_index", "attn_mask"))
        and name in arrays
        and not np.array_equal(arrays[name], table)
    ]
