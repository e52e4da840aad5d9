# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import shutil
import time

import pytest

from mdhr_jax import cli, errors
from mdhr_jax.bench import collectives, data, profile, run
from mdhr_jax.run.recipe import Recipe


@pytest.mark.long
@pytest.mark.parametrize("what", ["train", "infer"])
def test_a_program_is_timed_beside_its_floor(what, config_file, tmp_path, capsys, one_device):
    file = tmp_path / "bench.json"
    command = ["bench", what, f"--config={config_file()}", f"--json={file}", "--windows=2"]
    assert cli.main(command) == 0
    said = json.loads(file.read_text())
    shown = capsys.readouterr().out
    assert f"mdhr bench {what}" in shown and "roofline" in shown
    seconds = said["seconds"]
    assert 0 < seconds["fastest"] <= seconds["median"] <= seconds["slowest"]
    assert said["frames_per_second"] == pytest.approx(said["frames"] / seconds["median"])
    assert said["floor_share"] > 0 and said["utilisation"] > 0
    assert said["memory_bytes"] > 0 and said["flops"] > 0
    assert said["versions"]["jax"] and said["config"]["clip_length"]


@pytest.mark.long
def test_the_inputs_are_timed_over_every_frame(
    tiny_config, config_file, tmp_path, capsys, one_device
):
    shutil.copytree(tiny_config.data, tmp_path / "set")
    tiny_config.data = str(tmp_path / "set")
    file = tmp_path / "bench.json"
    assert cli.main(["bench", "data", f"--config={config_file()}", f"--json={file}"]) == 0
    said = json.loads(file.read_text())
    rates = said["inputs"]
    assert [rate["input"] for rate in rates] == ["encoded", "mapped", "resident"]
    assert {rate["frames"] for rate in rates} == {432}
    assert all(rate["cold"] > 0 and rate["warm"] > 0 for rate in [*rates, said["file"]])
    assert all(0 <= rate["wait"] < 1 for rate in rates)
    shown = capsys.readouterr().out
    assert f"{rates[0]['wait']:.1%}" in shown
    assert "decoded.npy, alone" in shown and "a training step takes" in shown


@pytest.mark.long
def test_the_wait_for_input_is_a_share_of_the_time():
    def batches():
        for number in itertools.count():
            time.sleep(0.2 if number > 1 else 0)  # the first two come before the clock runs
            yield number

    share, step = data._fed(batches(), str, lambda _: time.sleep(0.1), 20)
    # Nothing reads ahead here: 0.2 s of waiting to 0.1 s of work, if the machine is idle.
    assert 0.4 < share < 0.95 and step > 0.3 * 0.95
    assert data._fed(itertools.count(), str, lambda _: time.sleep(0.1), 20)[0] < 0.2


@pytest.mark.long
def test_a_trace_says_where_the_time_goes(config_file, tmp_path, capsys, one_device):
    trace, file = tmp_path / "trace", tmp_path / "bench.json"
    command = ["bench", "train", f"--config={config_file()}", f"--json={file}", "--windows=1"]
    assert cli.main([*command, f"--profile={trace}"]) == 0
    assert list(trace.rglob("*.xplane.pb"))
    spent = json.loads(file.read_text())["spent"]
    assert {entry["part"] for entry in spent} >= set(profile.PARTS)
    assert {entry["kind"] for entry in spent} == {"convolutions", "products", "rest"}
    shown = capsys.readouterr().out
    assert "| time in" in shown and "| backbone, backward" in shown


@pytest.mark.slow
def test_the_device_alone_and_a_checkpoint_beside_a_training(
    config_file, tmp_path, capsys, one_device
):
    file, said = tmp_path / "bench.json", {}
    for what in ("machine", "saving"):
        command = ["bench", what, f"--config={config_file()}", f"--json={file}", "--windows=2"]
        assert cli.main(command) == 0
        said[what] = json.loads(file.read_text())
    assert all(rate > 0 for rate in said["machine"]["machine"].values())
    saving = said["saving"]
    assert 0 < saving["returns"] < saving["written"] and saving["bytes"] > 0
    assert saving["alone"] > 0 and saving["beside"] > 0
    shown = capsys.readouterr().out
    assert "a product in float32" in shown and "while a checkpoint is written" in shown


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused(tiny_config):
    with pytest.raises(
        errors.InputError, match="speed: .* choose from machine, train, infer, data, saving"
    ):
        run.run("speed", Recipe.of(tiny_config), windows=1, profile=None)
    tiny_config.data = ""
    with pytest.raises(errors.InputError, match="no data set given"):
        run.run("data", Recipe.of(tiny_config), windows=1, profile=None)


@pytest.mark.slow
def test_exchanges_between_devices_are_timed(config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(collectives, "SIZES", (2**16,))
    file = tmp_path / "bench.json"
    command = ["bench", "collectives", f"--config={config_file()}", f"--json={file}", "--windows=1"]
    assert cli.main(command) == 0
    rates = json.loads(file.read_text())["rates"]
    assert [rate["kind"] for rate in rates] == ["all-reduce", "all-gather", "reduce-scatter"]
    assert all(rate["bytes"] == 2**16 and rate["bus"] > 0 for rate in rates)
    assert "all-gather" in capsys.readouterr().out


@pytest.mark.slow
def test_one_device_exchanges_nothing(tiny_config, one_device):
    with pytest.raises(errors.InputError, match="one device exchanges nothing"):
        run.run("collectives", Recipe.of(tiny_config), windows=1, profile=None)
