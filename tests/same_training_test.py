# SPDX-License-Identifier: Apache-2.0
"""Our training and PyTorch's from the same weights on the same batches."""

import numpy as np
import pytest


@pytest.fixture
def same_training(benchmark):
    return benchmark("same_training")


@pytest.mark.parametrize(
    "steps", [pytest.param(20, marks=pytest.mark.long), pytest.param(200, marks=pytest.mark.soak)]
)
def test_losses_agree_in_float64(run_torch, same_training, tmp_path, one_device, steps):
    config = same_training.prepare(tmp_path, steps)
    ours = same_training.ours(tmp_path, config, "float64")
    theirs = same_training.theirs(tmp_path, config, "float64")
    assert len(ours) == len(theirs) == steps
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    if steps == 200:  # fewer have learned nothing yet
        assert np.mean(ours[-50:]) < 0.95 * np.mean(ours[:50])
