# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from mdhr_jax import cli


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_quickstart")
def test_the_quickstart_leaves_a_result_and_does_nothing_twice(tmp_path, capsys):
    out = tmp_path / "quickstart"
    assert cli.main(["quickstart", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 of 3: 6 people are rendered") and "all AUs as one" in said
    for name in ("curves.png", "f1.png", "timeline.png", "f1.csv", "f1.md", "metrics.jsonl"):
        assert (out / name).stat().st_size
    result = json.loads((out / "result.json").read_text())
    assert 0 <= result["mean_f1"] <= 1 and len(result["per_au_f1"]) == 12
    assert not set(result["test_subjects"]) & set(result["train_subjects"])
    metrics = (out / "metrics.jsonl").read_text()

    assert cli.main(["quickstart", "--out", str(out)]) == 0
    again = capsys.readouterr().out
    assert "already prepared with the same settings" in again and "step 5 of 5" in again
    assert (out / "metrics.jsonl").read_text() == metrics
