# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.data import clip_facts


def check_fold(official_lists, golden, layout, fold):
    found = clip_facts.clip_index_facts(official_lists, layout, fold)
    name = f"{layout.name.upper()}_fold{fold}"
    expected = json.loads((golden / "clip_index.json").read_text())[name]
    with np.load(golden / "clip_index.npz") as arrays:
        expected |= {
            key: arrays[f"{name}_{key}"].tolist()
            for key in ("train_frame_counts", "val_pad_per_clip", "val_positive_counts")
        }
    for key in ("val_pad_per_clip", "val_positive_counts"):
        found[key] = found[key].tolist()
    assert found == expected


@pytest.mark.slow
def test_clip_index_is_the_release_s(official_lists, golden):
    check_fold(official_lists, golden, facs.BP4D, 1)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda layout: layout.name)
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_clip_index_of_every_fold_is_the_release_s(official_lists, golden, layout, fold):
    check_fold(official_lists, golden, layout, fold)
