# SPDX-License-Identifier: Apache-2.0
"""Pictures already cut to squares, with labels from the official lists.

The lists name pictures such as F001/T1/2440.jpg, SN001/SN001_0.png or (ME-GraphAU's) SN001/0.png;
the tree that holds them, or a folder `img` or `img_o` in it, is where these names begin.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from mdhr_jax import facs
from mdhr_jax.data import list_files, lists
from mdhr_jax.data.builders import recordings
from mdhr_jax.data.builders.recordings import UNKNOWN, Pictures, RawSet, Recording
from mdhr_jax.errors import InputError

_BEGINNINGS = ("", "img", "img_o")


def find(root: pathlib.Path, pictures: pathlib.Path, layout: facs.AuLayout) -> RawSet:
    """Every frame of the three test lists.

    Args:
      root: directory of the official lists, as for `list_files.find`.
      pictures: the tree of pictures.
      layout: whose lists.

    Raises:
      InputError: a list is missing or broken, names a picture outside the tree, or none of its
        pictures is there.
    """
    tests, _ = lists.read_test_sets(root, layout)
    base = _beginning(pictures, tests[0].paths[0])
    listed = []
    for test in tests:
        paths = iter(test.paths)
        for video in test.frames.to_videos():
            files = {number: base / next(paths) for number in video.number.tolist()}
            _refuse_outside(base, list(files.values()))
            listed.append(
                Recording(
                    subject=video.subject,
                    name=video.name,
                    numbers=video.number,
                    labels=video.labels,
                    intensities=np.full(video.labels.shape, UNKNOWN, np.int8),
                    source=Pictures({n: file for n, file in files.items() if file.is_file()}),
                )
            )
    folder = list_files.find(root, layout)
    label_files = tuple(
        folder.file(kind, fold, "test") for fold in list_files.FOLDS for kind in ("path", "label")
    )
    shown = [recording for recording in listed if recording.source.files]
    ordered = sorted(shown, key=lambda recording: (recording.subject, recording.name))
    names = [[recording.name for recording in some] for some in (listed, shown)]
    return RawSet(tuple(ordered), recordings.unmatched(*names), label_files, (pictures, root))


def _beginning(pictures: pathlib.Path, first: str) -> pathlib.Path:
    """The folder in which the lists' names begin."""
    for name in _BEGINNINGS:
        if (pictures / name / first.partition("/")[0]).is_dir():
            return pictures / name
    raise InputError(
        f"{pictures}: holds no folder {first.partition('/')[0]}, alone or in img or img_o; name "
        f"the folder in which the lists' names such as {first} begin"
    )


def _refuse_outside(base: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    """Looks where links lead.

    All pictures of a video have the same folder, by the lists' own definition of a video.
    """
    linked = [file for file in files if file.is_symlink()]
    for place in (files[0].parent, *linked):
        if not place.resolve().is_relative_to(base.resolve()):
            raise InputError(f"{place}: the lists name a place outside {base}; mend them")
