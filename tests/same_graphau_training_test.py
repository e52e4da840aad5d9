# SPDX-License-Identifier: Apache-2.0
"""Our training of GraphAU and PyTorch's from the same weights on the same batches."""

import pytest


@pytest.fixture
def same_training(benchmark):
    return benchmark("same_graphau_training")


@pytest.mark.parametrize(
    "steps", [pytest.param(20, marks=pytest.mark.long), pytest.param(200, marks=pytest.mark.soak)]
)
@pytest.mark.usefixtures("torch_python")
def test_losses_and_weights_agree_in_float64(same_training, tmp_path, steps):
    batches = same_training.prepare(tmp_path, steps)
    for name, case in same_training.CASES.items():
        ours = same_training.ours(case, batches)
        theirs = same_training.theirs(tmp_path, case, batches)
        assert len(ours.losses) == len(theirs.losses) == steps
        assert max(same_training.apart(ours, theirs)) <= 1e-6, name
        (moved,) = (ours.state[n] for n in ours.state if n.endswith("fc.weight") and "global" in n)
        start = same_training.initial(case)["params"]["static"]["linear"]["kernel"]
        assert abs(moved - start.T).max() > 1e-4, name  # it has learned
