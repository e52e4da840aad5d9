# SPDX-License-Identifier: Apache-2.0
"""Preparations that are killed, damaged input of every kind, and a training on what comes out."""

import functools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mdhr_jax import check_data, cli, evaluate, train
from mdhr_jax.configs import quickstart
from mdhr_jax.data import records
from mdhr_jax.data.builders import bp4d, disfa, folder
from mdhr_jax.errors import InputError
from mdhr_jax.faces import picture_files, video
from mdhr_jax.run.recipe import Recipe
from tests.data import raw_trees

pytestmark = pytest.mark.long
KILLS = int(os.environ.get("KILLS", "4"))
DAMAGES = int(os.environ.get("DAMAGES", "100"))  # of a file
SQUARES = functools.partial(raw_trees.blobs, size=(64, 64))


def _plan(count, *names):
    rng = np.random.default_rng(0)
    return [
        raw_trees.Bp4dVideo(*name.split("/"), first=1, labels=rng.integers(0, 2, (count, 12)))
        for name in names
    ]


def _contents(folder):
    """Every record and every other file; TFDS orders the fields of a record at random."""
    source = records.open_dataset(folder)
    rows = [source.records[row] for row in range(len(source.table))]
    files = {file.name: file.read_bytes() for file in folder.iterdir() if "record" not in file.name}
    return [{name: str(value) for name, value in sorted(row.items())} for row in rows], files


@pytest.mark.parametrize(
    "crop, videos, count, paint",
    [
        ("none", 12, 400, SQUARES),
        pytest.param("mtcnn", 6, 40, raw_trees.astronaut_faces, marks=pytest.mark.soak),
    ],
)
def test_killed_again_and_again_the_records_are_those_of_an_uninterrupted_run(
    tmp_path, crop, videos, count, paint, faces_extra
):
    names = [f"F{number // 2 + 1:03d}/T{number % 2 + 1}" for number in range(videos)]
    raw_trees.write_bp4d(tmp_path / "raw", _plan(count, *names), paint=paint)
    command = [sys.executable, "-m", "mdhr_jax.cli", "prepare", "bp4d", "--crop", crop]
    command += ["--size", "64", "--processes", "2", "--raw", str(tmp_path / "raw"), "--out"]
    start = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    needed = time.monotonic() - start
    moments, kills = random.Random(0), 0
    while kills < KILLS:
        if _killed(command, tmp_path / "set", after=moments.uniform(0, needed)):
            kills += 1
        else:  # it was finished: from the beginning
            shutil.rmtree(tmp_path / "set")
    subprocess.run([*command, tmp_path / "set"], check=True, capture_output=True)
    assert _contents(tmp_path / "set") == _contents(tmp_path / "whole")
    _assert_nobody_works_on(tmp_path)


def _killed(command, out, after):
    """Whether the command was still at work after so many seconds, when it was killed."""
    process = subprocess.Popen(
        [*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert process.wait(after) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def _assert_nobody_works_on(place):
    """Worker processes end with the process that started them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        if str(place) not in listed.stdout:
            return
        time.sleep(0.5)
    pytest.fail("processes are left over")


@pytest.mark.parametrize("images", ["jpg", pytest.param("avi", marks=pytest.mark.soak)])
def test_raw_bp4d_is_found_prepared_checked_trained_and_evaluated(tmp_path, images, one_device):
    """Labels and counts exactly as planned, with 9s, gaps, odd padding and a missing AU file."""
    rng = np.random.default_rng(0)
    plan = [
        raw_trees.Bp4dVideo(
            subject,
            task,
            first=7,
            labels=rng.choice([0, 1, 9], (20, 12), p=[0.5, 0.45, 0.05]),
            padding="mixed",
            missing=frozenset({9, 10}) if images == "jpg" and task == "T1" else frozenset(),
            uncoded_before=1,
            uncoded_after=1,
        )
        for subject in ("F001", "F003", "M003")
        for task in ("T1", "T2")
    ]
    raw_trees.write_bp4d(tmp_path / "raw", plan, images=images, paint=raw_trees.astronaut_faces)
    command = ["prepare", "bp4d", "--raw", tmp_path / "raw", "--out", tmp_path / "set"]
    assert cli.main([*map(str, command), "--size", "64", "--processes", "1"]) == 0
    source = records.open_dataset(tmp_path / "set")
    planned = [
        (f"{v.subject}/{v.task}", number, *np.where(row == 9, -1, row))
        for v in plan
        for number, row, shown in zip(v.numbers, v.labels, v.has_picture(images), strict=True)
        if shown
    ]
    table = source.table
    found = [
        (table.videos[v], number, *row)
        for v, number, row in zip(table.video, table.number, table.labels, strict=True)
    ]
    assert found == planned
    _, good = check_data.check(
        tmp_path / "set", tmp_path / "check", sources=[tmp_path / "raw"], progress=False
    )
    assert good
    _train_a_few_steps(tmp_path, "bp4d")


def test_own_videos_are_trained_with_a_layout_of_their_own(tmp_path, one_device):
    rng = np.random.default_rng(0)
    plan = [
        raw_trees.OwnVideo(
            name=f"{person}{number}",
            labels=rng.integers(0, 2, (12, 3)).tolist(),
            aus=(1, 12, 45),
            subject=person,
        )
        for person in ("anna", "ben", "cem")
        for number in (1, 2)
    ]
    raw_trees.write_folder(tmp_path / "raw", plan, paint=SQUARES)
    command = ["prepare", "folder", "--raw", tmp_path / "raw", "--out", tmp_path / "set"]
    command += ["--crop", "none", "--size", "64", "--processes", "1"]
    assert cli.main(list(map(str, command))) == 0
    assert records.open_dataset(tmp_path / "set").layout.aus == (1, 12, 45)
    _train_a_few_steps(tmp_path, "aus-1-12-45")


def _train_a_few_steps(tmp_path, layout):
    config = quickstart.get_config()
    config.update(
        {"data": str(tmp_path / "set"), "layout": layout, "image_size": 32, "batch_size": 2}
    )
    config.eval_batch_size, config.clip_length = 2, 4
    config.epochs, config.warmup_epochs = 2.0, 0.0
    config.model.backbone, config.model.dynamics.k = "resnet_narrow", 2
    train.train(config, tmp_path / "run")
    _, scored = evaluate.evaluate(evaluate.load(tmp_path / "run"))
    rows = Recipe.of(config).open_data().rows(1, "test")
    assert len(scored.scores) == len(rows)
    assert np.isfinite(scored.scores).all()


# Damage.


def _mutated(data, rng):
    """One of the ways in which files get damaged."""
    data = bytearray(data)
    place = rng.randrange(len(data)) if data else 0
    kind = rng.randrange(6)
    if kind == 0 and data:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        del data[place : place + rng.randrange(1, 40)]
    elif kind == 3:
        data[place:place] = rng.randbytes(rng.randrange(1, 20))
    elif kind == 4:
        data[place : place + 30] = bytes(len(data[place : place + 30]))
    else:
        lines = bytes(data).split(b"\n")
        rng.shuffle(lines)
        data = bytearray(b"\n".join(lines))
    return bytes(data)


PLACE = r"line \d|labels no frame|columns|found|outside|names no|count from 1"
TABLES = {
    "bp4d": lambda root: bp4d.find(root, root),
    "disfa": lambda root: disfa.find(root, root),
    "folder": folder.find,
}


@pytest.mark.parametrize("kind", TABLES)
def test_damaged_tables_are_read_or_refused_with_their_place(tmp_path, kind):
    levels = np.random.default_rng(0).integers(0, 6, (6, 12))
    if kind == "bp4d":
        raw_trees.write_bp4d(tmp_path, _plan(6, "F001/T1"), paint=SQUARES)
        file = tmp_path / "AUCoding/AU_OCC/F001_T1.csv"
    elif kind == "disfa":
        raw_trees.write_disfa(tmp_path, [raw_trees.DisfaSubject("SN001", levels)])
        file = tmp_path / "ActionUnit_Labels/SN001/SN001_au1.txt"
    else:
        own = raw_trees.OwnVideo("a", [[0, 1]] * 6, subject="anna")
        raw_trees.write_folder(tmp_path, [own])
        file = tmp_path / "labels.csv"
    whole, rng = file.read_bytes(), random.Random(kind)
    refused = 0
    for _ in range(DAMAGES):
        file.write_bytes(_mutated(whole, rng))
        try:
            TABLES[kind](tmp_path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert re.search(PLACE, str(error))
    assert refused > DAMAGES / 5


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_damaged_pictures_are_whole_or_refused(tmp_path, name):
    """A JPEG may decode to other pixels, which the manifest shows, but never to half a picture."""
    file = tmp_path / name
    raw_trees.Image.fromarray(next(raw_trees.astronaut_faces("F001", "T1", 1))).save(file)
    whole, picture, rng = file.read_bytes(), picture_files.read(file), random.Random(name)
    refused = 0
    for _ in range(DAMAGES):
        data = _mutated(whole, rng)
        file.write_bytes(data)
        try:
            found = picture_files.read(file)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(file)) and "\n" not in str(error)
        else:
            assert found.dtype == np.uint8 and found.shape[2] == 3
            if len(data) < len(whole) * 0.9:
                pytest.fail("a part of the file was read as the whole")
            assert found.shape == picture.shape or data != whole
    assert refused > DAMAGES * 0.3


def test_damaged_videos_are_read_or_refused(tmp_path):
    file = tmp_path / "a.avi"
    raw_trees.write_video(file, raw_trees.blobs("F001", "T1", 12), codec="mjpeg")
    whole = file.read_bytes()

    def is_refused(number):
        file = tmp_path / f"{number}.avi"
        file.write_bytes(_mutated(whole, random.Random(number)))
        try:
            frames = list(video.frames(file))
        except InputError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)
            assert "broke down" not in str(error)
            return True
        assert all(frame.picture.shape[2] == 3 for frame in frames)
        assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
        return False

    with ThreadPoolExecutor(2) as pool:  # each of them waits for its decoder
        assert sum(pool.map(is_refused, range(DAMAGES))) > DAMAGES / 5


def test_a_preparation_of_damaged_raw_data_ends_with_one_line_or_records(tmp_path, capsys):
    raw_trees.write_bp4d(tmp_path / "whole", _plan(4, "F001/T1", "F003/T1"), paint=SQUARES)
    files = [
        file for file in sorted((tmp_path / "whole").rglob("*")) if file.suffix in (".jpg", ".csv")
    ]
    rng = random.Random(0)
    codes = []
    for number in range(40):
        raw, out = tmp_path / f"raw{number}", tmp_path / f"set{number}"
        shutil.copytree(tmp_path / "whole", raw)
        target = raw / rng.choice(files).relative_to(tmp_path / "whole")
        target.write_bytes(_mutated(target.read_bytes(), rng))
        command = ["prepare", "bp4d", "--raw", raw, "--out", out, "--crop", "none"]
        codes.append(cli.main([*map(str, command), "--size", "64", "--processes", "1"]))
        said = capsys.readouterr().err.splitlines()
        assert codes[-1] in (0, 2)
        if codes[-1] == 2:
            assert len([line for line in said if line.startswith("mdhr prepare:")]) == 1
            assert not out.exists()
        else:
            records.open_dataset(out)
    assert {0, 2} == set(codes)
