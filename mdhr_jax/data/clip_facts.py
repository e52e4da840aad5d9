# SPDX-License-Identifier: Apache-2.0
"""What the golden vectors state about the clips cut from the official lists (`mdhr verify`)."""

import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from einops import rearrange

from mdhr_jax import facs
from mdhr_jax.data import clips, list_files, lists

CLIP_LENGTH = 16


def clip_index_facts(root: str | pathlib.Path, layout: facs.AuLayout, fold: int) -> dict[str, Any]:
    """Clip index of one fold, in the terms of `clip_index.json` and `clip_index.npz`.

    Args:
      root: directory of the official lists.
      layout: whose lists.
      fold: 1, 2 or 3.

    Returns:
      The entries of the json file for this fold, and `val_pad_per_clip` `(b,)` and
      `val_positive_counts` `(n,)`, which only the npz file holds.

    Raises:
      InputError: the lists are missing or broken.
    """
    train = lists.read_fold(root, layout, fold, "train")
    test = lists.read_fold(root, layout, fold, "test")
    return {
        **training_facts(train),
        **evaluation_facts(test),
        "list_files": _file_facts(root, layout, fold),
    }


def training_facts(train: lists.FoldLists) -> dict[str, Any]:
    """The entries of `clip_index.json` that begin with `train` or say how many videos there are."""
    frames = train.frames
    starts, stops = frames.bounds
    counts = stops - starts
    step = np.diff(frames.number)[np.diff(frames.video) == 0]
    gap_rows = _gap_rows(frames)
    first = np.concatenate(
        [np.arange(a, b - CLIP_LENGTH + 1) for a, b in zip(starts, stops, strict=True)]
    )
    return {
        "n_train_videos": len(frames.videos),
        "train_frames_total": len(frames),
        "train_frame_counts": counts.tolist(),
        "train_video_names": list(frames.videos),
        "train_nonincreasing": int((step <= 0).sum()),
        "train_frame_number_gaps": len(gap_rows),
        "train_videos_with_gap": len(np.unique(frames.video[gap_rows])),
        "train_largest_gap": int(step.max(initial=0)),
        "train_start_positions": len(first),
        "train_start_positions_spanning_gap": int(_spans(first, gap_rows).sum()),
        "train_subjects": sorted(set(frames.subjects)),
        "train_sha256": _training_digest(train),
    }


def evaluation_facts(test: lists.FoldLists) -> dict[str, Any]:
    """The entries of `clip_index.json` and `clip_index.npz` that begin with `val`."""
    frames = test.frames
    index = clips.evaluation_clips(frames, CLIP_LENGTH)
    padding = (~index.valid).sum(1)
    ends = index.rows[:, [0, -1]]
    subject = np.array(frames.subjects)[frames.video][ends]
    gap_rows = _gap_rows(frames)
    gaps_inside = _spans(index.rows[:, 0], gap_rows)
    labels = np.where(index.valid[..., None], frames.labels[index.rows], -1)
    padded_aus = (labels == -1).sum(-1)
    paths = [[test.paths[row] for row in clip] for clip in ends]
    return {
        "val_clips": len(index),
        "val_frames_padded": int(padding.sum()),
        "val_frames_real": int(index.valid.sum()),
        "val_clips_with_padding": int((padding > 0).sum()),
        "val_partially_minus1_frames": int(
            ((padded_aus > 0) & (padded_aus < labels.shape[-1])).sum()
        ),
        "val_first3": paths[:3],
        "val_last3": paths[-3:],
        "val_clips_crossing_subject": int((subject[:, 0] != subject[:, 1]).sum()),
        "val_clips_crossing_task": int(np.ptp(frames.video[ends], axis=1).astype(bool).sum()),
        "val_clips_spanning_frame_gap": int(gaps_inside.astype(bool).sum()),
        "val_gaps_inside_clips": int(gaps_inside.sum()),
        "val_gap_examples": [paths[clip] for clip in np.flatnonzero(gaps_inside)[:3]],
        "val_subjects": sorted(set(frames.subjects)),
        "val_sha256": _evaluation_digest(test, index, labels),
        "val_pad_per_clip": padding,
        "val_positive_counts": (frames.labels == 1).sum(0),
    }


def paths_digest(paths: Iterable[str]) -> str:
    """SHA-256 of a path list, line by line."""
    return _sha256("".join(f"{path}\n" for path in paths))


def regions_digest(split: lists.FoldLists) -> str:
    """SHA-256 of the region list that these labels give, line by line `1 0 0 2`."""
    rows = split.regions.tolist()
    return _sha256("".join(" ".join(map(str, numbers)) + "\n" for numbers in rows))


def _gap_rows(frames: clips.FrameTable) -> np.ndarray:
    """Rows whose successor in the same video skips frame numbers."""
    return np.flatnonzero((np.diff(frames.video) == 0) & (np.diff(frames.number) > 1))


def _spans(first: np.ndarray, gap_rows: np.ndarray) -> np.ndarray:
    """How many gaps lie inside each clip that starts at row `first`."""
    return np.searchsorted(gap_rows, first + CLIP_LENGTH - 1) - np.searchsorted(gap_rows, first)


def _lines(paths: Iterable[str], labels: np.ndarray, regions: np.ndarray) -> list[str]:
    return [
        f"{path} {' '.join(map(str, aus))} | {' '.join(map(str, numbers))}\n"
        for path, aus, numbers in zip(paths, labels.tolist(), regions.tolist(), strict=True)
    ]


def _training_digest(train: lists.FoldLists) -> str:
    lines = _lines(train.paths, train.frames.labels, train.regions)
    videos = ("".join(lines[a:b]) for a, b in zip(*train.frames.bounds, strict=True))
    return _sha256("#\n".join([*videos, ""]))


def _evaluation_digest(test: lists.FoldLists, index: clips.Clips, labels: np.ndarray) -> str:
    rows = index.rows.ravel()
    flat_labels = rearrange(labels, "b t n -> (b t) n")
    return _sha256("".join(_lines((test.paths[r] for r in rows), flat_labels, test.regions[rows])))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_facts(root: str | pathlib.Path, layout: facs.AuLayout, fold: int) -> dict[str, Any]:
    kinds = [("test", "path"), ("test", "label"), ("test", "region")]
    kinds += [("train", "path"), ("train", "label"), ("train", "region"), ("train", "weight")]
    folder, facts = list_files.find(root, layout), {}
    for split, kind in kinds:
        file = folder.file(kind, fold, split)
        data = file.read_bytes()
        facts[file.name] = {
            "lines": len(data.splitlines()),
            "newline_chars": data.count(b"\n"),
            "crlf": data.count(b"\r\n"),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    return facts
