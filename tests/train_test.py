# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
import fcntl
import functools
import gc
import logging
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import errors, evaluate, train
from mdhr_jax.machine import sharding
from mdhr_jax.models import backbones, mdhr
from mdhr_jax.numerics import preprocess, steps
from mdhr_jax.run import checkpoint, directory, inputs, step_log, writers
from mdhr_jax.run.programs import Programs, Schedule, programs_for
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import load_trained

REPOSITORY = pathlib.Path(__file__).parents[1]


def _final_state(workdir, config, total_steps):
    recipe = Recipe.of(config)
    programs = programs_for(recipe, recipe.open_data(), sharding.make_mesh(), total_steps)
    return checkpoint.restore(directory.checkpoints(workdir), "last", programs.abstract)


def _assert_equal_runs(one, other, config, total_steps=8):
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    jax.tree.map(
        np.testing.assert_array_equal,
        _final_state(one, config, total_steps),
        _final_state(other, config, total_steps),
    )


@pytest.mark.long
def test_an_interrupted_run_ends_bit_equal_to_one_that_was_not(
    config_of_a_kind, tmp_path, stop_at_step, one_device
):
    train.train(config_of_a_kind, tmp_path / "whole")
    stop_at_step(6)
    with pytest.raises(KeyboardInterrupt):
        train.train(config_of_a_kind, tmp_path / "stopped")
    assert checkpoint.latest_step(directory.checkpoints(tmp_path / "stopped"), "last") == 4
    train.train(config_of_a_kind, tmp_path / "stopped")
    _assert_equal_runs(tmp_path / "whole", tmp_path / "stopped", config_of_a_kind)

    rows = writers.read(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 9))
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [4, 8]
    best = max((row for row in rows if row["kind"] == "eval"), key=lambda row: row["mean_f1"])
    saved = directory.checkpoints(tmp_path / "whole")
    assert checkpoint.latest_step(saved, "best") == best["step"]
    assert checkpoint.latest_step(saved, "last") == 8

    result, scored = evaluate.evaluate(evaluate.load(tmp_path / "whole"))
    (mean,) = [row.values[0] for row in result.rows if row.name == "mean"]
    assert mean == pytest.approx(best["mean_f1"], abs=1e-12)
    assert np.isfinite(scored.scores).all()


@pytest.fixture
def poison(monkeypatch):
    """Lets the pictures of some steps be no numbers: those with a negative brightness."""
    training_batches, augmented = inputs.training_batches, preprocess.TRAINING["fixed"]

    def augment(frames, draws, *, image_size):
        images = augmented(frames, draws, image_size=image_size)
        return jnp.where((draws[:, 3] < 0).any(), jnp.nan, images)

    def poisoned(*chosen):
        def batches(recipe, source, start, part):
            for step, batch in enumerate(training_batches(recipe, source, start, part), start + 1):
                bad = np.full_like(batch["augment"], -1)
                yield batch | {"augment": bad} if step in chosen else batch

        monkeypatch.setattr(inputs, "training_batches", batches)
        monkeypatch.setitem(preprocess.TRAINING, "fixed", augment)

    return poisoned


@pytest.mark.long
def test_a_loss_that_stays_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    tiny_config, tmp_path, poison, one_device, capsys
):
    poison(4, 5, 6)
    with pytest.raises(errors.NonFiniteLossError, match="steps 4 to 6: the loss is nan; the last"):
        train.train(tiny_config, tmp_path)
    assert checkpoint.latest_step(directory.checkpoints(tmp_path), "last") == 4
    assert "step 5: the loss is nan; the step is left out" in capsys.readouterr().err
    with np.load(tmp_path / "nonfinite.npz") as batch:
        assert (batch["augment"] == -1).all() and batch["frames"].dtype == np.uint8


@pytest.mark.long
def test_steps_without_a_finite_loss_change_nothing(tiny_config, tmp_path, poison, one_device):
    poison(1, 2, *range(4, 6), *range(7, 9))
    train.train(tiny_config, tmp_path)
    rows = [r for r in writers.read(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert [row["step"] for row in rows if row["loss"] is None] == [1, 2, 4, 5, 7, 8]
    state = load_trained(tmp_path).state
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_folds_seeds_and_lengths_share_their_programs(tiny_config, rendered_set, one_device):
    """So that a cross-validation, and a comparison over seeds, compile once."""
    mesh, texts = sharding.make_mesh(), set()
    batches = inputs.training_batches(Recipe.of(tiny_config), rendered_set, 0)
    batch = sharding.put_batch(mesh, next(batches))
    for fold, seed, total_steps in ((1, 0, 8), (2, 1, 100)):
        tiny_config.update(fold=fold, seed=seed)
        made = programs_for(Recipe.of(tiny_config), rendered_set, mesh, total_steps)
        texts.add(made.init.lower(made.schedule).as_text())
        texts.add(made.train.lower(made.abstract, batch, made.schedule).as_text())
    assert len(texts) == 2


@pytest.mark.long
@pytest.mark.parametrize("name", list(inputs.INPUTS))
def test_nothing_is_compiled_after_the_second_step(
    tiny_config, rendered_set, tmp_path, one_device, name
):
    shutil.copytree(tiny_config.data, tmp_path / "set")
    tiny_config.data, tiny_config.input = str(tmp_path / "set"), name
    mesh, recipe = sharding.make_mesh(), Recipe.of(tiny_config)
    source = recipe.open_data()
    programs = programs_for(recipe, source, mesh, 6)
    source, put = inputs.reading(recipe, source, mesh)
    batches = inputs.training_batches(recipe, source, 0)
    state = programs.init(programs.schedule)
    for _ in range(2):
        state, scalars = programs.train(state, put(next(batches)), programs.schedule)
    programs.score(state, source, put)
    with jax.log_compiles(), _recorded() as compiled:
        for _ in range(4):
            state, scalars = programs.train(state, put(next(batches)), programs.schedule)
            float(scalars["loss"])
        programs.score(state, source, put)
    assert compiled == []


@contextlib.contextmanager
def _recorded():
    """What JAX says that it compiles."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def test_what_is_compiled_is_seen():
    with jax.log_compiles(), _recorded() as compiled:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))
    assert any("ompil" in line for line in compiled)


@pytest.mark.long
def test_the_three_inputs_give_the_same_batches_and_the_same_training(
    tiny_config, tmp_path, one_device
):
    shutil.copytree(tiny_config.data, tmp_path / "set")
    tiny_config.data = str(tmp_path / "set")
    mesh, batches = sharding.make_mesh(), {}
    for tiny_config.input in inputs.INPUTS:
        recipe = Recipe.of(tiny_config)
        source, put = inputs.reading(recipe, recipe.open_data(), mesh)
        batch = put(next(inputs.training_batches(recipe, source, 5)))
        batches[tiny_config.input] = batch | {"frames": steps.frames(batch)}
        batches[tiny_config.input].pop("pictures", None)
        train.train(tiny_config, tmp_path / tiny_config.input)
    jax.tree.map(np.testing.assert_array_equal, batches["encoded"], batches["mapped"])
    jax.tree.map(np.testing.assert_array_equal, batches["encoded"], batches["resident"])
    _assert_equal_runs(tmp_path / "encoded", tmp_path / "mapped", tiny_config)
    _assert_equal_runs(tmp_path / "encoded", tmp_path / "resident", tiny_config)


def test_an_unknown_input_is_refused_before_anything_is_made(tiny_config, tmp_path):
    tiny_config.input = "telepathy"
    with pytest.raises(errors.InputError, match="config.input.*encoded.*mapped.*resident"):
        train.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def other_run(tiny_config, tmp_path):
    """A run with temporal filters, another seed and no steps, and its parameters."""
    recipe = dataclasses.replace(Recipe.of(tiny_config), seed=1)
    programs = programs_for(recipe, recipe.open_data(), sharding.make_mesh(), 1)
    state = programs.init(programs.schedule)
    directory.claim(tmp_path / "other", recipe)
    checkpoint.save(directory.checkpoints(tmp_path / "other"), "best", 0, state)
    return tmp_path / "other", state["params"]


@pytest.mark.long
def test_a_run_starts_from_the_backbone_of_another(tiny_config, tmp_path, one_device, other_run):
    path, params = other_run
    tiny_config.model.init_from = str(path)
    tiny_config.model.temporal = False  # only the backbones must be the same
    tiny_config.learning_rate, tiny_config.epochs = 0.0, 0.1
    train.train(tiny_config, tmp_path / "run")
    started = load_trained(tmp_path / "run").state["params"]
    jax.tree.map(np.testing.assert_array_equal, started["backbone"], params["backbone"])
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, started["au_features"], params["au_features"])


@pytest.mark.slow
def test_a_second_stage_starts_from_a_first(tiny_config, as_graphau, tmp_path, one_device, capsys):
    first = as_graphau(tiny_config, relations="nearest", edge_head=False)
    first.steps = 1
    train.train(first, tmp_path / "first")
    second = as_graphau(tiny_config, init_from=str(tmp_path / "first"))
    second.steps, second.learning_rate = 1, 0.0
    train.train(second, tmp_path / "second")
    said = capsys.readouterr().err
    assert "takes over backbone, static, au_features, classifier; anew: relations" in said
    one, other = (load_trained(tmp_path / run).state["params"] for run in ("first", "second"))
    for part in ("backbone", "static", "au_features", "classifier"):
        jax.tree.map(np.testing.assert_array_equal, one[part], other[part])


@pytest.mark.slow
def test_a_backbone_that_does_not_fit_is_refused_and_no_run_is_begun(
    tiny_config, tmp_path, one_device, other_run, monkeypatch
):
    tiny_config.model.init_from = str(other_run[0])
    narrow = backbones.BACKBONES["resnet_narrow"]
    monkeypatch.setitem(backbones.BACKBONES, "wide", functools.partial(narrow, width=16))
    tiny_config.model.backbone = "wide"
    with pytest.raises(errors.InputError, match="does not fit 'wide'; name a run with the same"):
        train.train(tiny_config, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_a_killed_process_resumes_bit_equal(tiny_config, config_file, tmp_path, one_device):
    """kill -9 three times at different moments, then the same command to the end."""
    tiny_config.epochs, tiny_config.batch_size = 5.0, 1  # forty steps
    file = config_file()
    command = [sys.executable, "-m", "mdhr_jax.cli", "train", f"--config={file}"]

    def start(workdir):
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=REPOSITORY, stderr=subprocess.PIPE
        )

    def finish(workdir):
        process = start(workdir)
        _, stderr = process.communicate(timeout=400)
        assert process.returncode == 0, stderr.decode()

    finish(tmp_path / "whole")
    for rows in (5, 14, 30):
        process = start(tmp_path / "killed")
        while len(writers.read(tmp_path / "killed" / "metrics.jsonl")) < rows:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(tmp_path / "killed")

    _assert_equal_runs(tmp_path / "whole", tmp_path / "killed", tiny_config, total_steps=40)
    best = [load_trained(tmp_path / run).state for run in ("whole", "killed")]
    jax.tree.map(np.testing.assert_array_equal, *best)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_steps_in_vain_in_a_row_stop_the_run(tmp_path, name, value):
    writer = writers.RunWriter(tmp_path, step=0, total_steps=9)
    log = step_log.LateLog(tmp_path, writer, 4)
    finite = {"loss": jnp.float32(0.5), "gradient_norm": jnp.float32(2)}
    bad = finite | {name: jnp.float32(value)}
    for step, scalars in enumerate([finite, bad, bad, finite, bad, bad, bad], start=1):
        log.add(step, scalars, {"frames": np.full(3, step)})
    words = name.replace("_", " ")
    with pytest.raises(errors.NonFiniteLossError, match=f"steps 5 to 7: the {words} is {value}; "):
        log.flush()
    writer.close()
    assert [row["step"] for row in writers.read(tmp_path / "metrics.jsonl")] == [*range(1, 8)]
    with np.load(tmp_path / "nonfinite.npz") as batch:
        assert batch["frames"].tolist() == [7] * 3


def test_the_wait_for_input_is_told_as_its_share_of_a_step(tmp_path, monkeypatch):
    now, told = 0.0, []
    monkeypatch.setattr(step_log.time, "perf_counter", lambda: now)
    writer = writers.RunWriter(tmp_path, step=0, total_steps=4)
    monkeypatch.setattr(writer, "train", lambda *_, **speed: told.append(speed))

    def feed():
        nonlocal now
        for seconds in (0.0, 1.0, 0.0, 3.0):
            now += seconds
            yield seconds

    log, batches = step_log.LateLog(tmp_path, writer, frames_per_step=8), feed()
    for step in range(1, 5):
        log.take(batches)
        now += 1.0
        log.add(step, {"loss": jnp.ones(()), "gradient_norm": jnp.ones(())}, {})
    writer.close()
    # A step is logged when the loop has the next one's batch, for which it may have waited.
    assert [speed["input_wait"] for speed in told] == [1 / 3, 0.0, 3 / 4]
    assert [speed["frames_per_second"] for speed in told] == [8 / 3, 8.0, 2.0]


@pytest.fixture
def without(rendered_set):
    """The data set as it would be if some AUs, by their place, were never active."""

    def make(*places):
        labels = rendered_set.table.labels.copy()
        labels[:, places] = 0
        return dataclasses.replace(
            rendered_set, table=dataclasses.replace(rendered_set.table, labels=labels)
        )

    return make


def test_an_au_that_never_occurs_is_weighted_as_the_rarest(tiny_config, without, capsys):
    source = without(3)
    weights = inputs.class_weights(Recipe.of(tiny_config), source)
    assert "AU06 never active in training, weighted as the rarest" in capsys.readouterr().out
    others = np.delete(weights, 3)
    assert weights[3] == others.max()
    assert others.min() < others.max()


def test_a_fold_without_any_active_au_is_refused(tiny_config, without):
    with pytest.raises(errors.InputError, match="no AU is ever active in fold 1's training"):
        inputs.class_weights(Recipe.of(tiny_config), without(*range(12)))


def test_values_that_cannot_be_are_refused(tiny_config, tmp_path):
    tiny_config.eval_every = 0
    with pytest.raises(errors.InputError, match="config.eval_every=0: give at least 1"):
        train.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_commands_do_not_train_in_the_same_directory(tiny_config, tmp_path, one_device):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.InputError, match="another command is at work here; wait for it"):
            train.train(tiny_config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.fixture
def counting(monkeypatch, one_device):
    """Programs that count steps instead of training; `before_step` is called with the number."""

    first = {"step": jnp.int32(0), "params": {}, "batch_stats": {}, "opt_state": {}}

    def arrange(before_step):
        def step(state, batch, schedule):
            before_step(int(state["step"]) + 1)
            scalars = {"loss": jnp.float32(1), "gradient_norm": jnp.float32(1)}
            return state | {"step": state["step"] + 1}, scalars

        step.lower = step.trace = lambda *arguments: types.SimpleNamespace(compile=lambda: step)
        programs = Programs(
            lambda schedule: first,
            step,
            lambda *arguments: None,
            checkpoint.abstract(first, jax.tree.map(lambda x: x.sharding, first)),
            Schedule(*[np.zeros(2, np.uint32)] * 2, 1e-3, 8, 0),
        )
        monkeypatch.setattr(train, "programs_for", lambda *arguments: programs)

    return arrange


def test_the_constructor_is_traced_once_before_anything_is_compiled(
    tiny_config, tmp_path, monkeypatch, one_device
):
    built, traced, programs = mdhr.MDHR.__init__, [], programs_for

    def build(self, *arguments, **slots):
        traced.append(slots)
        built(self, *arguments, **slots)

    def compile_nothing(*_):
        raise KeyboardInterrupt

    def uncompiled(*arguments):
        compile_nothing.lower = compile_nothing.trace = compile_nothing
        return dataclasses.replace(
            programs(*arguments), init=lambda schedule: {}, train=compile_nothing
        )

    monkeypatch.setattr(mdhr.MDHR, "__init__", build)
    monkeypatch.setattr(train, "programs_for", uncompiled)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny_config, tmp_path)
    assert len(traced) == 1


def _train_up_to(last, config, workdir, counting):
    """Stops as by Ctrl-C before a step."""

    def stop(step):
        if step == last:
            raise KeyboardInterrupt

    counting(stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, workdir)


@pytest.mark.slow
def test_a_lost_metrics_file_is_told_and_does_not_replace_the_best(
    tiny_config, tmp_path, counting, monkeypatch, capsys
):
    f1 = iter([0.9, 0.5, 0.3, 0.2])
    monkeypatch.setattr(train, "evaluation_scalars", lambda *arguments: {"mean_f1": next(f1)})
    tiny_config.eval_every = tiny_config.checkpoint_every = 2
    _train_up_to(5, tiny_config, tmp_path, counting)
    (tmp_path / "metrics.jsonl").write_text("")
    counting(lambda step: None)
    train.train(tiny_config, tmp_path)
    assert "metrics.jsonl: ends at step 0, before the checkpoint's 4" in capsys.readouterr().err
    saved = directory.checkpoints(tmp_path)
    assert checkpoint.latest_step(saved, "best") == 2
    assert checkpoint.latest_step(saved, "last") == 8
    assert checkpoint.facts(saved, "best", 2) == {
        "best_mean_f1": 0.9,
        "evaluation": {"step": 2, "mean_f1": 0.9},
    }


@pytest.mark.slow
def test_a_run_of_an_earlier_version_whose_metrics_are_lost_is_refused(
    tiny_config, tmp_path, counting, monkeypatch
):
    monkeypatch.setattr(train, "evaluation_scalars", lambda *arguments: {"mean_f1": 0.5})
    monkeypatch.setattr(checkpoint, "facts", lambda *arguments: {})
    tiny_config.eval_every = tiny_config.checkpoint_every = 2
    _train_up_to(5, tiny_config, tmp_path, counting)
    rows = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text("")
    counting(lambda step: None)
    with pytest.raises(errors.InputError, match="ends before the checkpoint's step 4, and nothing"):
        train.train(tiny_config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text(rows)
    train.train(tiny_config, tmp_path)
    assert checkpoint.latest_step(directory.checkpoints(tmp_path), "best") == 2


def test_the_metrics_are_on_the_disk_before_a_checkpoint_counts(
    tiny_config, tmp_path, counting, monkeypatch
):
    done = []
    sync, put = writers.RunWriter.sync, checkpoint._put_in_place
    monkeypatch.setattr(
        writers.RunWriter, "sync", lambda self: (done.append("metrics"), sync(self))
    )
    monkeypatch.setattr(
        checkpoint, "_put_in_place", lambda new, step: (done.append(str(step)), put(new, step))
    )
    counting(lambda step: None)
    tiny_config.eval_every = 100
    tiny_config.protocol = "last"
    monkeypatch.setattr(train, "evaluation_scalars", lambda *arguments: {"mean_f1": 0.0})
    train.train(tiny_config, tmp_path)
    steps = [int(name) for name in done if name != "metrics"]
    assert steps == [3, 6, 8]
    for count, step in enumerate(steps, start=1):
        assert done[: done.index(str(step))].count("metrics") >= count


def test_a_directory_that_cannot_be_written_is_refused_before_the_first_step(tiny_config, counting):
    counting(pytest.fail)
    with pytest.raises(errors.InputError, match="/dev/null/run: cannot be written"):
        train.train(tiny_config, "/dev/null/run")


@pytest.mark.slow
@pytest.mark.parametrize("full_at", [1, 5])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # unwritten rest
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tiny_config, tmp_path, counting, full_at):
    # A limit on the size of files stands in for the full disk.
    def fill(step):
        if step == full_at:
            while step > 3 and checkpoint.latest_step(saved, "last") != 3:
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    saved = directory.checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    counting(fill)
    tiny_config.eval_every = 100
    try:
        with pytest.raises(
            errors.InputError, match=r"written \(File too large\); the last checkpoint is"
        ):
            train.train(tiny_config, tmp_path)
        gc.collect()  # complains of the unwritten rest here, not in another test
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.latest_step(saved, "last") == (None if full_at == 1 else 3)
