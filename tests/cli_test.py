# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import traceback
import types

import jax
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import cli, errors, facs, train
from mdhr_jax.commands import data, models
from mdhr_jax.data import records
from mdhr_jax.data.builders import prepare
from mdhr_jax.faces import align, squares
from mdhr_jax.faces import crop as crops
from mdhr_jax.infer import predict
from mdhr_jax.machine import locks
from mdhr_jax.run import checkpoint, directory, trained
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import abstract_state

CONFIG = "quickstart"


def _refused(capsys, *arguments):
    """The one line that wrong input leaves on stderr."""
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_lists_every_command_and_each_has_its_own(capsys):
    assert cli.main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert name in overview
        assert cli.main([name, "--help"]) == 0
        assert f"usage: mdhr {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "unknown command; choose from quickstart, synthesize"),
        (["train", "--config", CONFIG, "--workdir", "w"], "add --config.data=DIRECTORY"),
        (["train", "--config", CONFIG, "--workdir", "w", "--config.data=gone"], "gone"),
        (["train", "--config", CONFIG], "--workdir is missing"),
        (["train", "--config", CONFIG, "--config.batchsize=3"], "batch_size"),
        (["train", "--config", CONFIG, "--config.model.dynamic.k=3"], "dynamics"),
        (["train", "--config", CONFIG, "--config.fold=one"], "config.fold=one"),
        (["train", "--config", CONFIG, "--workdirs=w"], "Did you mean: workdir"),
        (["train", "more"], "expected no positional arguments, got more"),
        (["evaluate", "--checkpoint", "gone"], "gone: holds no run"),
        (["evaluate"], "--checkpoint is missing"),
        (["evaluate", "--checkpoint", "x", "--protocol", "first"], "official|last|held-out"),
        (["evaluate", "--checkpoint", "x.pth", "--fold", "1"], "add --data DIRECTORY --fold N"),
        (["predict", "--checkpoint", "x"], "expected SOURCE, got nothing"),
        (["verify", "--golden", "gone"], "gone: no such directory"),
        (["synthesize", "--layout", "cat"], "--layout: layout 'cat' is unknown"),
        (["synthesize", "--subjects", "3"], "--out is missing"),
        (["synthesize", "--show", "faces.jpg"], "end the name in one of .png .webp .gif"),
        (["compare", "--workdir", "w"], "--config is missing"),
        (["compare", "--config", CONFIG, "--workdir", "w"], "--variant: give at least one"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2(arguments, expected, capsys):
    assert expected in _refused(capsys, *arguments)


def test_an_empty_golden_directory_is_refused(tmp_path, capsys):
    assert "holds no golden vectors" in _refused(capsys, "verify", "--golden", str(tmp_path))


def _train(config_file, workdir, *overrides):
    return ["train", "--config", str(config_file), "--workdir", str(workdir), *overrides]


@pytest.mark.slow
def test_a_run_of_another_layout_is_refused_before_anything_is_compiled(
    config_file, tmp_path, capsys
):
    line = _refused(capsys, *_train(config_file(), tmp_path / "run", "--config.layout=disfa"))
    assert "has layout 'bp4d'" in line
    assert "layout 'disfa'" in line
    assert not (tmp_path / "run").exists()


def test_a_data_set_fits_every_layout_of_its_aus(tiny_config):
    tiny_config.layout = "bp4d_three_regions"
    assert Recipe.of(tiny_config).open_data().layout.name == "bp4d"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("--config.batch_size=6", "config.batch_size=6 clips do not divide over 8 devices"),
        ("--config.batch_norm_groups=3", "config.batch_norm_groups=3 does not divide"),
        ("--config.image_size=40", "config.image_size=40: backbone 'resnet_narrow' takes"),
        ("--config.precision=half", "config.precision='half' is unknown"),
        ("--config.model.backbone=vgg", "backbone='vgg' is unknown; choose from resnet18"),
        ("--config.model.auxiliary=False", "needs the auxiliary heads"),
        ("--config.fold=4", "fold 4"),
        ("--config.augmentation=2.0", "config.augmentation=2.0: give a number from 0 to 1"),
        ("--config.clip_length=0", "config.clip_length=0: give at least 1"),
        ("--config.evaluation_crop=left", "config.evaluation_crop='left' is unknown"),
        ("--config.model.initial=loud", "initial='loud' is unknown; choose from release, calm"),
        ("--config.fsdp=3", "fsdp=3 does not divide the 8 devices"),
    ],
)
def test_configurations_that_cannot_run_are_refused(
    override, expected, config_file, tmp_path, capsys
):
    assert expected in _refused(capsys, *_train(config_file(), tmp_path / "run", override))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "crossval"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("config.learningrate = 5.0", "config.learningrate: there is no such key; did you mean"),
        ("del config['protocol']", "config.protocol: is missing"),
        ("config = dict(config)", "tiny.py: get_config() gives no ConfigDict"),
        ("config.threshold = 7.0", "config.threshold=7.0: give a number from 0 to 1"),
    ],
)
def test_a_configuration_file_with_other_keys_or_values_is_refused(
    command, line, expected, config_file, tmp_path, capsys
):
    file = config_file()
    file.write_text(file.read_text().replace("    return", f"    {line}\n    return"))
    _, *arguments = _train(file, tmp_path / "run")
    assert expected in _refused(capsys, command, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_gives_exit_code_3(config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train", _raising(errors.NonFiniteLossError("step 5: the loss")))
    assert cli.main(_train(config_file(), tmp_path / "run")) == 3
    assert capsys.readouterr().err == "mdhr train: step 5: the loss\n"


def _raising(error):
    def call(*arguments, **keywords):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying\nto allo"),
            "the device's memory is not enough (RESOURCE_EXHAUSTED: Out of memory while trying to "
            "allo); use a smaller config.batch_size",
        ),
        (
            jax.errors.JaxRuntimeError(f"INTERNAL: {300 * 'x'} Out of memory allocating 9 bytes."),
            "the device's memory is not enough (INTERNAL: xxx",
        ),
        (MemoryError("Unable to allocate 8.00 TiB"), "memory is not enough (Unable to allocate 8"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device; mend that"),
        (OSError("cannot identify image file"), "mdhr train: cannot identify image file; mend "),
    ],
)
def test_what_the_machine_does_not_give_is_one_line(
    error, expected, config_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(train, "train", _raising(error))
    assert expected in _refused(capsys, *_train(config_file(), tmp_path / "run"))


@pytest.mark.parametrize("error", [RuntimeError("ours"), AssertionError(), KeyError("ours")])
def test_our_own_mistakes_keep_their_traceback(error, config_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "train", _raising(error))
    assert cli.main(_train(config_file(), tmp_path / "run")) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("".join(traceback.format_exception_only(error)))


@pytest.mark.slow
def test_a_machine_without_the_device_that_is_asked_for_is_told(config_file, tmp_path):
    command = [sys.executable, "-m", "mdhr_jax.cli", *_train(config_file(), tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mdhr train: JAX finds no device of JAX_PLATFORMS='cuda' (" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("train", []),
        ("crossval", []),
        ("compare", ["--results", "/dev/null/x", "--variant", "a:", "--variant", "b:"]),
        ("tables", ["--table", "3", "--data", "DATA"]),
    ],
)
def test_a_directory_that_cannot_be_written_is_one_line(
    command, more, config_file, tiny_config, capsys, one_device
):
    more = [tiny_config.data if text == "DATA" else text for text in more]
    arguments = ["--config", str(config_file()), "--workdir", "/dev/null/x", *more]
    line = _refused(capsys, command, *arguments)
    assert line.startswith(f"mdhr {command}: /dev/null/x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["synthesize", "--out", "{0}/set", "--subjects", "3"], "set.incomplete"),
        (["quickstart", "--out", "{0}/run"], "run/data.incomplete"),
        (["convert", "{0}/model", "{0}/run"], "run"),
        (["evaluate", "--checkpoint", "{0}/model", "--out", "{0}/tables"], "tables"),
        (["evaluate", "--checkpoint", "{0}/model"], "model/evaluation"),
    ],
)
def test_a_directory_at_which_another_command_is_at_work_is_refused(
    arguments, taken, tiny_config, tmp_path, capsys, one_device
):
    tiny_config.protocol = "last"
    recipe = Recipe.of(tiny_config)
    directory.claim(tmp_path / "model", recipe)
    shapes, _ = abstract_state(recipe)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    checkpoint.save(directory.checkpoints(tmp_path / "model"), "last", 8, state)
    with locks.alone(tmp_path / taken, ""):
        line = _refused(capsys, *(text.format(tmp_path) for text in arguments))
    assert f"{taken}: another command is at work here; wait for it, or name another" in line


@pytest.mark.slow
def test_a_resume_with_a_changed_configuration_names_the_keys(
    tiny_config, config_file, tmp_path, capsys
):
    directory.claim(tmp_path / "run", Recipe.of(tiny_config))
    line = _refused(
        capsys,
        *_train(config_file(), tmp_path / "run", "--config.seed=5", "--config.model.features=16"),
    )
    assert "model.features (8 -> 16), seed (0 -> 5)" in line


@pytest.mark.slow
def test_a_picture_that_does_not_decode_names_its_record(
    config_file, tmp_path, capsys, monkeypatch, one_device
):
    decode = records.FrameSource.decode
    monkeypatch.setattr(
        records.FrameSource,
        "decode",
        lambda source, row, data, out: decode(source, row, data if row % 5 else data[:-200], out),
    )
    assert cli.main(_train(config_file(), tmp_path / "run")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mdhr train: ")
    assert "the picture does not decode as jpeg" in last


@pytest.fixture
def synthesize_from_lists(write_lists, tmp_path):
    """Arguments that render from lists with one test subject of two frames in each fold."""

    def arguments(*subjects):
        for fold, subject in enumerate(subjects, start=1):
            paths = [f"{subject}/T1/{number}.jpg" for number in (1, 2)]
            labels = np.zeros((2, len(facs.BP4D.aus)), int)
            write_lists(tmp_path / "lists", facs.BP4D, fold, "test", paths, labels)
        out = ["--out", str(tmp_path / "out")]
        return ["synthesize", "--layout", "bp4d", "--lists", str(tmp_path / "lists"), *out]

    return arguments


def test_a_list_with_a_wrong_count_is_refused(synthesize_from_lists, tmp_path, capsys):
    arguments = synthesize_from_lists("F001", "F003", "F005")
    file = tmp_path / "lists/BP4D_dataset/BP4D_test_label_fold1.txt"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert "BP4D_test_label_fold1.txt" in _refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_subject_in_two_folds_is_refused_by_name(synthesize_from_lists, tmp_path, capsys):
    assert "F001" in _refused(capsys, *synthesize_from_lists("F001", "F001", "F005"))
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_predict_writes_a_row_for_every_picture(tiny_config, tmp_path, one_device, capsys):
    """The checkpoint of a real run, through the command."""
    tiny_config.epochs = 1.0
    train.train(tiny_config, tmp_path / "run")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    levels = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), np.uint8)
    for number, picture in enumerate(levels):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    out = tmp_path / "out.csv"
    arguments = ["--checkpoint", str(tmp_path / "run"), "--crop", "none", "--out", str(out)]
    assert cli.main(["predict", str(pictures), *arguments]) == 0
    header, *rows = out.read_text().splitlines()
    assert len(rows) == 6
    said = capsys.readouterr().err
    assert "may be worse" not in said  # rendered faces fill their pictures
    assert "taken for a film's frames; add --photos" in said
    for name in facs.BP4D.au_names:
        assert name in header
    (pictures / "0.png").rename(pictures / "zero.png")
    assert cli.main(["predict", str(pictures), *arguments]) == 0
    assert "taken for photos" in capsys.readouterr().err
    assert out.read_text().splitlines()[-1].startswith(",,zero.png,1,")


@pytest.mark.parametrize(
    ("trained", "crop", "template", "expected", "warned"),
    [
        (None, None, None, align.TEMPLATES["portrait"], False),
        (None, "mtcnn", "disfa", align.TEMPLATES["disfa"], False),
        (None, "center", None, squares.Stated(crops.center), False),
        ("none", None, None, squares.Stated(crops.center), True),
        ("1,2,30,30", None, None, squares.Stated(crops.Box(1, 2, 30)), False),
        ("none", "none", None, squares.Stated(crops.whole), False),
        ("mtcnn, template disfa", None, None, align.TEMPLATES["disfa"], False),
        ("mtcnn, template 0.3,0.4", None, None, align.Template(0.3, 0.4), False),
        ("mtcnn, template disfa", "mtcnn", "bp4d", align.TEMPLATES["bp4d"], True),
        ("mtcnn, template bp4d", "center", None, squares.Stated(crops.center), True),
        ("yunet 1a2b3c4d, template bp4d", None, None, squares.Stated(crops.center), True),
    ],
)
def test_faces_are_cut_as_in_training(
    trained, crop, template, expected, warned, capsys, faces_extra
):
    model = types.SimpleNamespace(crop=trained, template="portrait")
    cutter = models._cutter_like(model, crop, template)
    found = cutter.template if isinstance(cutter, squares.Found) else cutter
    assert found == expected
    said = capsys.readouterr().err
    assert ("its scores may be worse" in said) == warned
    assert ("does not say by what" in said) == (trained is None)


def test_other_people_and_missing_frames_are_told_of(capsys):
    done = predict.Done(99, 99, 25.0, False, 4, range(10, 80, 10), 2)
    models._tell_of("a.mp4", done)
    assert capsys.readouterr().err.splitlines() == [
        "mdhr predict: a.mp4: 4 show more than one face; one of them is followed",
        "mdhr predict: a.mp4: another face is followed from frame 10, 20, 30, 40, 50 and 2 more on",
        "mdhr predict: a.mp4: frames are missing in 2 places; no clip goes on over them",
    ]
    models._tell_of("a.mp4", done._replace(several=0, changes=(), gaps=0))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "crop"), [("prepare", "center"), ("prepare", "csv:a.csv"), ("predict", "center")]
)
def test_faces_of_a_size_are_looked_for_by_mtcnn_alone(
    command, crop, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        trained, "Predictor", lambda path: types.SimpleNamespace(crop=None, template="bp4d")
    )
    arguments = ["folder", "--raw", str(tmp_path)] if command == "prepare" else ["a.mp4"]
    arguments += ["--checkpoint", "run"] if command == "predict" else []
    line = _refused(
        capsys, command, *arguments, "--out", "x", "--crop", crop, "--smallest_face", "60"
    )
    assert f"--smallest_face: has no meaning with --crop={crop}" in line


def test_prepare_looks_for_faces_of_the_size_that_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "_find_recordings", lambda values, kind: (None, None, "own labels"))
    monkeypatch.setattr(
        prepare,
        "prepare",
        lambda out, found, layout, settings, **rest: asked.append((settings, rest)),
    )
    arguments = ["prepare", "folder", "--raw", str(tmp_path), "--out", str(tmp_path / "set")]
    for more in ([], ["--smallest-face=60"]):
        assert cli.main([*arguments, *more]) == 0
    assert [settings.smallest_face for settings, _ in asked] == [None, 60]
    assert len({rest["source"] for _, rest in asked}) == 2  # the sets are not the same


def _mdhr(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "mdhr_jax.cli", *arguments], check=False, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("unread", ["stdout", "stderr"])
@pytest.mark.parametrize("arguments", [["--help"], ["prepare", "--help"], ["fly"]])
def test_where_nobody_reads_a_command_ends_quietly(arguments, unread):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, unread: writer}
        done = _mdhr(*arguments, **streams)
    finally:
        os.close(writer)
    wrong = arguments == ["fly"]  # is told on stderr
    spoken = "stderr" if wrong else "stdout"
    assert done.returncode == (141 if unread == spoken else 2 * wrong)
    assert not (done.stderr and not wrong)


@pytest.mark.slow
def test_letters_that_a_terminal_lacks_are_no_error():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = _mdhr("evaluate", "--checkpoint", "gefühl", env=environment, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"mdhr evaluate: gef\\xfchl: holds no run")


@pytest.mark.parametrize(
    ("shown", "trained", "warned"),
    [
        (60.0, 25.0, True),
        (30.0, 25.0, False),
        (10.0, 25.0, True),
        (None, 25.0, False),
        (60.0, None, False),
    ],
)
def test_a_film_of_another_pace_is_told_of(capsys, shown, trained, warned):
    models._warn_of_other_pace("a.mp4", shown, trained)
    said = capsys.readouterr().err
    assert ("a.mp4 has" in said and "ffmpeg -r 25" in said) == warned
