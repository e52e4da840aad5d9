# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil

import numpy as np
import pytest

from mdhr_jax import cli, errors, evaluate, facs, train
from mdhr_jax.data import clips, people, stored
from mdhr_jax.data.builders import rendered
from mdhr_jax.run import directory, provenance, seen
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.scoring import Scores
from mdhr_jax.studies import compare, crossval, experiments, figures


def _render(out, **settings):
    """As `rendered_set`, smaller."""
    smaller = {"seed": 3, "subjects": 6, "videos_per_subject": 1, "frames_per_video": 9}
    smaller |= {"image_size": 37, "progress": False} | settings
    return rendered.build(out, facs.BP4D, **smaller)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six people, tested two by two in this order: 1 4, 2 5, 3 6."""
    return _render(tmp_path_factory.mktemp("seen") / "set")


@pytest.fixture
def run(make_run, small):
    """Of fold 1: has learned from S002, S003, S005, S006."""
    return make_run("run", data=str(small.path))


@pytest.mark.slow
def test_a_set_made_again_with_one_more_person_deals_people_to_other_folds(run, small, tmp_path):
    more = _render(tmp_path / "set", subjects=["A", *(f"S{n:03d}" for n in range(1, 7))])
    assert more.folds[0] == ("A", "S003", "S006")
    with pytest.raises(errors.InputError, match=r"run: .* whom fold 1 .* \(S003, S006\); test on"):
        evaluate.load(run, data=more.path)


@pytest.mark.parametrize("size", [37, pytest.param(41, marks=pytest.mark.slow)])
def test_a_copy_or_another_crop_of_the_same_recordings_shows_the_same_people(
    run, small, tmp_path, size
):
    if size == small.image_size:
        shutil.copytree(small.path, tmp_path / "copy")
    else:
        _render(tmp_path / "copy", image_size=size)
    with pytest.raises(errors.InputError, match=r"fold 2 .*/copy tests \(S002, S005\); test on"):
        evaluate.load(run, data=tmp_path / "copy", fold=2)
    allowed = evaluate.load(run, data=tmp_path / "copy", fold=2, allow_seen=True)
    assert allowed.recipe.fold == 2


@pytest.mark.slow
def test_figures_refuse_them_too(run, tmp_path):
    with pytest.raises(errors.InputError, match=r"\(S002, S005\); test on others, or add --allow"):
        figures.figure("3", run, tmp_path / "a.png", fold=2)


@pytest.mark.slow
def test_people_of_the_same_names_are_others_and_told_of(run, tmp_path, capsys):
    other = _render(tmp_path / "other", seed=4)
    evaluate.load(run, data=other.path, fold=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{run}: S002, S005 of the test subjects have the names of people whom")


def test_names_of_official_folds_are_enough():
    learned = people.Seen({"F001": ["a"], "S001": ["a"]})
    tested = {"F001": ["b"], "S001": ["b"], "M001": ["a"]}
    assert learned.among(tested, ["F001", "M001"]) == (["F001"], ["S001"])


def test_a_person_is_known_by_the_pictures_or_by_the_labels_of_one_video(monkeypatch, small):
    rng, number = np.random.default_rng(0), np.arange(8)
    one, two = rng.integers(-1, 2, (2, 8, 12)).astype(np.int8)
    silent = np.zeros((8, 12), np.int8)
    pictures = {}
    monkeypatch.setattr(stored, "read_digests", lambda *arguments: pictures)

    def seen_of(*videos):
        table = clips.FrameTable.from_videos([clips.Video(*video) for video in videos])
        return people.videos(dataclasses.replace(small, table=table), table.subjects)

    pictures = {"a": "p1", "b": "p2", "c": "p3"}
    learned = people.Seen(
        seen_of(("a", "01", number, one), ("b", "01", number, two), ("c", "01", number, silent))
    )
    pictures = {"same": "p2", "other": "q"}
    for name, person, numbers, labels, known in [
        ("other", "01", number, two, True),  # another crop, another name
        ("same", "01", number, -two, True),  # other labels
        ("same", "01", number, silent, True),
        ("other", "01", number + 1, two, False),
        ("other", "01", number, -two, False),
        ("other", "01", number, silent, False),  # nothing to tell them apart
        ("same", "02", number, two, False),
    ]:
        found, _ = learned.among(seen_of((name, person, numbers, labels)), [])
        assert found == (["01"] if known else []), (name, person)


@pytest.mark.slow
def test_a_backbone_that_has_seen_other_people_of_these_names_may_begin(
    make_run, small, tiny_config, tmp_path, capsys
):
    """As in launch/twin.sh and launch/tables.sh."""
    others = _render(tmp_path / "others", seed=1, frames_per_video=3)
    tiny_config.model.init_from = str(make_run("backbone", data=str(others.path)))
    tiny_config.data = str(small.path)
    grid = experiments.Grid(tiny_config, [experiments.Variant("full", {})], [0], [1, 2, 3])
    assert next(experiments.complete(grid, workdir=tmp_path / "work", results=tmp_path)) == []
    assert "of the test subjects have the names of people whom it has" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "crossval", "compare"])
def test_a_start_from_what_has_seen_the_test_subjects_is_refused_before_anything_is_trained(
    make_run, small, tiny_config, tmp_path, command
):
    """A run of fold 3 has learned from the people of folds 1 and 2."""
    start = make_run("start", data=str(small.path), fold=3)
    tiny_config.data, tiny_config.model.init_from = str(small.path), str(start)
    tiny_config.fold = 3
    work = tmp_path / "work"
    grid = experiments.Grid(tiny_config, [experiments.Variant("full", {})], [0], [3, 1])
    begin = {
        "train": lambda: train.train(tiny_config.copy_and_resolve_references(), work),
        "crossval": lambda: crossval.crossval(tiny_config, work),
        "compare": lambda: next(experiments.complete(grid, workdir=work, results=work)),
    }[command]
    if command == "train":
        tiny_config.fold = 1
    with pytest.raises(errors.InputError, match=r"init_from=.*start: .* fold 1 .*\(S001, S004\)"):
        begin()
    assert not work.exists()


@pytest.mark.slow
def test_a_run_knows_whom_its_start_has_seen(make_run, small, tmp_path, tiny_config):
    other = _render(tmp_path / "other", seed=4)
    start = make_run("start", data=str(other.path))
    own = make_run("own", data=str(small.path), **{"model.init_from": str(start)})
    with pytest.raises(errors.InputError, match=r"own: .* \(S002, S005\); test on others"):
        evaluate.load(own, data=other.path, fold=2)

    tiny_config.data, tiny_config.model.init_from = str(small.path), "resnet50.pth"
    learned = seen.in_training(Recipe.of(tiny_config), small)
    assert set(learned.people) == {"S002", "S003", "S005", "S006"}
    verdict = seen.verdict(learned, small, 1)
    assert str(verdict) == "none known (resnet50.pth: does not say whom it has learned from)"


def _as_of_an_earlier_version(run, **changes):
    file = run / "data.json"
    said = json.loads(file.read_text())
    for entry in ("fingerprint", "people", "unknown"):
        said.pop(entry, None)
    file.write_text(json.dumps(said | changes))


@pytest.mark.slow
def test_runs_of_earlier_versions_know_them_where_their_data_are(run, small, tmp_path, capsys):
    _as_of_an_earlier_version(run)
    with pytest.raises(errors.InputError, match=r"\(S002, S005\); test on others"):
        evaluate.load(run, fold=2)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": str(tmp_path / "gone")}))
    with pytest.raises(errors.InputError, match=r"\(S002, S005\); test on others"):
        evaluate.load(run, data=small.path, fold=2)  # it has moved
    assert not capsys.readouterr().err
    _as_of_an_earlier_version(run, index="another set is there now")
    with pytest.raises(
        errors.InputError, match="trained for fold 1, perhaps on people whom fold 2"
    ):
        evaluate.load(run, data=small.path, fold=2)
    evaluate.load(run, data=small.path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "kept no names" in line and "cannot be checked" in line


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
def test_a_copy_of_a_run_knows_whom_the_run_has_seen(run, tmp_path, earlier):
    if earlier:
        _as_of_an_earlier_version(run)
    assert cli.main(["convert", str(run), str(tmp_path / "copy")]) == 0
    with pytest.raises(errors.InputError, match=r"copy: .* \(S002, S005\); test on others"):
        evaluate.load(tmp_path / "copy", fold=2)


@pytest.mark.slow
def test_a_run_that_has_lost_what_it_learned_from_says_so(run, tiny_config, small, capsys):
    (run / "data.json").unlink()
    recipe = directory.load_recipe(run)
    learned = provenance.Learned.of(small, seen.in_training(recipe, small))
    directory.claim(run, recipe, learned)
    assert "has no data.json: whether this is the data set" in capsys.readouterr().err
    assert provenance.read(run) is None
    assert "does not say whom" in str(seen.verdict(seen.of_model(run), small, 1))


@pytest.mark.slow
def test_what_was_seen_stands_in_the_tables(run, small, finished_run, random_counts):
    trained = evaluate.load(run, fold=2, allow_seen=True)
    verdict = seen.verdict(seen.of_model(run), small, 2)
    size = len(small.rows(2, "test"))
    scored = Scores(
        "set",
        np.arange(size),
        ["S002"] * size,
        np.zeros((size, 12), np.float32),
        np.ones((size, 12), np.int32),
        np.ones((size, 12), bool),
        verdict,
    )
    assert "seen in training S002, S005, frames" in evaluate.table(trained, scored).caption
    done = finished_run("full", 0, random_counts(np.random.default_rng(0)))
    caption = compare.caption([dataclasses.replace(done, seen=str(verdict))])
    assert "50 frames, seen in training: S002, S005," in caption


@pytest.mark.slow
def test_the_command_refuses_and_marks(run, capsys):
    assert cli.main(["evaluate", "--checkpoint", str(run), "--fold=2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(S002, S005); test on others, or add --allow_seen_subjects" in line
    assert not (run / "evaluation").exists()
    arguments = ["--checkpoint", str(run), "--fold=2", "--allow_seen_subjects"]
    assert cli.main(["evaluate", *arguments]) == 0
    assert "seen in training S002, S005" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_evaluation_tells_of_another_crop(run, small, capsys):
    said = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps(said | {"crop": "mtcnn, template bp4d"}))
    evaluate.load(run)
    (line,) = capsys.readouterr().err.splitlines()
    assert "has learned from faces cut by mtcnn, template bp4d, 25 frames per second; those" in line


def test_a_file_keeps_its_tables_beside_itself(run, tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(evaluate, "write_tables", lambda path, out, **rest: written.append(out))
    file = tmp_path / "run.pth"
    file.write_bytes(b"")
    for checkpoint in (file, run):
        assert cli.main(["evaluate", "--checkpoint", str(checkpoint)]) == 0
    assert [str(out.relative_to(tmp_path)) for out in written] == [
        "run.pth.evaluation",
        "run/evaluation",
    ]
    assert directory.config_file(run).exists()
