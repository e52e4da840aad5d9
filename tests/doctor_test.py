# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import json
import shutil

import pytest

from mdhr_jax import cli, doctor
from mdhr_jax.run import checkpoint, directory


def lines(capsys, *arguments, code=0):
    assert cli.main(["doctor", *map(str, arguments)]) == code
    return capsys.readouterr().out.splitlines()


def stops(page):
    return [line for line in page if line.startswith("  STOP")]


def test_a_healthy_machine_has_nothing_that_stops(capsys):
    page = lines(capsys)
    assert not stops(page)
    assert any("jax" in line and "flax" in line for line in page)
    assert any("CPU cores: rendering" in line for line in page)
    assert any(line.startswith("  ok    mdhr quickstart: ") for line in page)


def test_every_line_that_is_not_well_says_what_to_do(capsys, tmp_path):
    page = lines(capsys, tmp_path, code=1)
    for line, after in zip(page, [*page[1:], ""], strict=True):
        assert after.strip().startswith("->") == line.startswith(("  STOP", "  note")), line


def test_a_nearly_full_disk_stops(capsys, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=300 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    page = lines(capsys, code=1)
    (stop,) = stops(page)
    assert "mdhr quickstart" in stop
    assert "free 0.7 GiB of disk more, or name another place" in page[page.index(stop) + 1]


def test_without_the_extras_it_says_what_is_not_there_and_how_to_get_it(capsys, monkeypatch):
    version = importlib.metadata.version

    def bare(name):
        if name in ("lz4", "mtcnn", "opencv-python-headless"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", bare)
    page = lines(capsys)
    (note,) = [line for line in page if "extra faces" in line]
    assert note.startswith("  note") and "lz4 is not installed, mtcnn is not installed" in note
    assert page[page.index(note) + 1].endswith("'.[faces]'")


def test_another_version_than_the_package_needs_stops(capsys, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1" if name == "flax" else version(name)
    )
    (stop,) = stops(lines(capsys, code=1))
    assert "flax 0.1 is not >=" in stop


def test_jax_without_a_device_stops(capsys, monkeypatch):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda': no device")

    monkeypatch.setattr("mdhr_jax.machine.devices.found", broken)
    (stop,) = stops(lines(capsys, code=1))
    assert "JAX: Unable to initialize backend 'cuda'" in stop


def test_a_data_set_of_another_layout_says_how_to_train_on_it(
    capsys, rendered_set, tmp_path, monkeypatch
):
    page = "\n".join(lines(capsys, rendered_set.path))
    assert "layout bp4d: AUs 1 2 4" in page and "test people by fold: [2, 2, 2]" in page
    shutil.copytree(rendered_set.path, tmp_path / "set")
    file = tmp_path / "set" / "metadata.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"layout": "mine"}))
    (stop,) = stops(lines(capsys, tmp_path / "set", code=1))
    assert "mine" in stop


def test_a_run_is_looked_at_and_a_damaged_one_stops(capsys, make_run, tmp_path):
    run = make_run("run")
    page = "\n".join(lines(capsys, run))
    assert "checkpoint 'last' of step 9, whole" in page
    assert "the one it has learned from" in page and "step 9 of 8" in page

    folder = directory.checkpoints(run) / "last" / "9"
    largest = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (stop,) = stops(lines(capsys, run, code=1))
    assert "is damaged or missing" in stop
    largest.write_bytes(content)
    assert checkpoint.latest_step(directory.checkpoints(run), "last") == 9

    shutil.move(directory.checkpoints(run), tmp_path / "elsewhere")
    (note,) = [line for line in lines(capsys, run) if "no checkpoint in" in line]
    assert note.startswith("  note")
    shutil.move(tmp_path / "elsewhere", directory.checkpoints(run))

    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": str(tmp_path / "gone")}))
    (stop,) = stops(lines(capsys, run, code=1))
    assert "gone: no such directory" in stop

    (run / "config.json").write_text("{")
    page = lines(capsys, run, code=1)
    assert "no readable config.json" in page[-2] and page[-1].endswith("bring back a copy of it")


def test_a_run_whose_data_set_is_now_of_other_aus_stops(capsys, make_run, tmp_path):
    run = make_run("run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"layout": "disfa"}))
    page = lines(capsys, run, code=1)
    assert "has layout 'bp4d'" in page[-2] and "the model has layout 'disfa'" in page[-2]
    assert page[-1].endswith("or train another model with --config.layout=bp4d")


@pytest.mark.parametrize("content", ["", "{}"])
def test_what_is_neither_is_said(capsys, tmp_path, content):
    (tmp_path / "notes.txt").write_text(content)
    (stop,) = stops(lines(capsys, tmp_path, code=1))
    assert "no data set, run or results of mdhr" in stop
    (stop,) = stops(lines(capsys, tmp_path / "gone", code=1))
    assert "no such directory" in stop


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mdhr-jax {importlib.metadata.version('mdhr-jax')}\n"
    assert doctor.doctor(None)[1]
