# SPDX-License-Identifier: Apache-2.0
"""Mistakes that a contributor could make, and which run of the tests catches each.

    python -m tests.faults [NAME ...] [--short | --all] [--own] [--json FILE]

Each is planted in a copy of the tracked files, where pytest stops at the first test that fails:
first what runs on save, with `--short` then what `launch/test.sh` adds, with `--all` then what that
adds; each time the tests of the fault's own room before the others, or alone (`--own`).
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
RUNS = {
    "pytest": "not slow and not long and not soak",
    "launch/test.sh": "slow and not long and not soak",
    "launch/test.sh --all": "long and not soak",
}
"""By what a user starts: the tests that it has beside those of the one before."""


class Fault(NamedTuple):
    """`new` in place of `old`, which stands once in `file`; `tests` are those of its room."""

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "differences-backwards",
        "a wrong sign: each frame is taken from the one after it",
        "mdhr_jax/models/dynamics.py",
        "maps[:, 1:] - maps[:, :-1]",
        "maps[:, :-1] - maps[:, 1:]",
        ("tests/models",),
    ),
    Fault(
        "static-late",
        "an offset: static features of the frames k later than the motion's",
        "mdhr_jax/models/mdhr.py",
        "tokens[:, self.context : tokens.shape[1] - self.context]",
        "tokens[:, 2 * self.context :]",
        ("tests/models",),
    ),
    Fault(
        "pooling-last",
        "another of equals: the gradient goes to the last maximum of a window",
        "mdhr_jax/models/resnet.py",
        "jnp.where(seen > best, jnp.int8(number), place)",
        "jnp.where(seen >= best, jnp.int8(number), place)",
        ("tests/models",),
    ),
    Fault(
        "drop-path-key",
        "a random key used twice: both branches of a block are dropped together",
        "mdhr_jax/models/swin.py",
        "self.drop_path(self.mlp_out(hidden), keys[1])",
        "self.drop_path(self.mlp_out(hidden), keys[0])",
        ("tests/models",),
    ),
    Fault(
        "region-mask",
        "a weakened mask: regions with unknown AUs count where any AU is known",
        "mdhr_jax/numerics/losses.py",
        "reduction.entries(chosen, unknown[..., r] == 0)",
        "reduction.entries(chosen, mask.any(-1))",
        (
            "tests/numerics/losses_test.py",
            "tests/verify/golden_test.py",
            "tests/numerics/steps_test.py",
        ),
    ),
    Fault(
        "auc-mask",
        "a mask too late: ranks of all frames, those of unknown labels among them",
        "mdhr_jax/numerics/metrics.py",
        "stats.rankdata(s[known])",
        "stats.rankdata(s)[known]",
        ("tests/numerics/metrics_test.py", "tests/run/protocol_test.py", "tests/evaluate_test.py"),
    ),
    Fault(
        "infinite-gradient",
        "a lost check: a step with an infinite gradient is taken if its loss is finite",
        "mdhr_jax/numerics/steps.py",
        'jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["gradient_norm"])',
        'jnp.isfinite(scalars["loss"])',
        ("tests/numerics/steps_test.py", "tests/train_test.py"),
    ),
    Fault(
        "decay-of-weights",
        "a usual habit that the release has not: norms and biases do not decay",
        "mdhr_jax/numerics/optim.py",
        "optax.adamw(schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay)",
        "optax.adamw(\n        schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, "
        "mask=_is_weight\n    )",
        (
            "tests/numerics/optim_test.py",
            "tests/numerics/steps_test.py",
            "tests/verify/golden_test.py",
        ),
    ),
    Fault(
        "crop-axes",
        "swapped axes: a crop's offset to the right is taken downwards",
        "mdhr_jax/numerics/preprocess.py",
        "(0, offset_y, offset_x, 0)",
        "(0, offset_x, offset_y, 0)",
        ("tests/numerics/preprocess_test.py", "tests/numerics/steps_test.py"),
    ),
    Fault(
        "last-start",
        "off by one: no training clip ends with a video's last frame",
        "mdhr_jax/data/clips.py",
        "np.maximum(line.stops - clip_length, line.starts)",
        "np.maximum(line.stops - clip_length - 1, line.starts)",
        (
            "tests/data/clips_test.py",
            "tests/data/clip_facts_test.py",
            "tests/data/pipeline_test.py",
        ),
    ),
    Fault(
        "hold-ignored",
        "an ignored key: training clips end at every missing frame, whatever config.hold says",
        "mdhr_jax/data/pipeline.py",
        "            hold=source.hold,\n",
        "",
        ("tests/data/pipeline_test.py", "tests/data/clips_test.py", "tests/train_test.py"),
    ),
    Fault(
        "first-record",
        "a check in the wrong place: of each person the first record is read, which is there in a "
        "file that was cut off",
        "mdhr_jax/data/records.py",
        "source.record(int(table.rows_of([subject])[-1]))",
        "source.record(int(table.rows_of([subject])[0]))",
        ("tests/data/records_test.py", "tests/check_data_test.py"),
    ),
    Fault(
        "film-from-zero",
        "off by one: labels of BP4D are given to the frame after theirs",
        "mdhr_jax/data/builders/bp4d.py",
        "Film(file, first=1)",
        "Film(file, first=0)",
        ("tests/data/bp4d_test.py", "tests/data/raw_trees_test.py", "tests/data/prepare_test.py"),
    ),
    Fault(
        "half-a-pixel",
        "pixels' corners taken for their centres: faces lie up to half a pixel aside",
        "mdhr_jax/faces/align.py",
        "    half = 0.5 + 0.5j\n    b = -(transform.b + half) / transform.a + half\n",
        "    b = -transform.b / transform.a\n",
        ("tests/faces",),
    ),
    Fault(
        "patch-axes",
        "swapped axes: patches of official weights are read, and written, transposed",
        "mdhr_jax/interop/names.py",
        'PATCH = "(p q i) o -> o i p q"',
        'PATCH = "(q p i) o -> o i p q"',
        ("tests/interop", "tests/verify/golden_test.py"),
    ),
    Fault(
        "checkpoint-unsynced",
        "a lost fsync: a checkpoint counts before its files are on the disk",
        "mdhr_jax/run/checkpoint.py",
        "        _sync(folder / _NEW)\n",
        "",
        ("tests/run/checkpoint_test.py", "tests/train_test.py"),
    ),
    Fault(
        "resumed-in-another-precision",
        "a lost check: a run goes on in another precision than it was begun in",
        "mdhr_jax/run/directory.py",
        'MEANS = ("deterministic", "fsdp", "input")',
        'MEANS = ("deterministic", "fsdp", "input", "precision")',
        ("tests/run/directory_test.py", "tests/train_test.py"),
    ),
    Fault(
        "chosen-on-test",
        "a leak: step and thresholds of protocol held-out are chosen on the test people",
        "mdhr_jax/run/programs.py",
        "        split=recipe.protocol.split,\n",
        "",
        ("tests/run/protocol_test.py", "tests/train_test.py"),
    ),
    Fault(
        "people-permuted",
        "a permutation for its inverse: draws of people depend on the order of their names",
        "mdhr_jax/numerics/bootstrap.py",
        "drawn[:, np.argsort(order)]",
        "drawn[:, order]",
        (
            "tests/studies/compare_test.py",
            "tests/evaluate_test.py",
            "tests/studies/experiments_test.py",
        ),
    ),
    Fault(
        "seen-forgotten",
        "a leak: whom the model has seen that a run starts from is forgotten",
        "mdhr_jax/run/seen.py",
        "own.with_others(of_model(pathlib.Path(start), source)) if start else own",
        "own",
        ("tests/run/seen_test.py",),
    ),
    Fault(
        "ramp-edge",
        "half a frame: an expression crosses the threshold at a frame instead of before it",
        "mdhr_jax/synth/labels.py",
        "np.abs(np.arange(frames) + 0.5 - edge) / ramp",
        "np.abs(np.arange(frames) - edge) / ramp",
        ("tests/synth",),
    ),
    Fault(
        "clip-over-faces",
        "a lost condition: prediction's clips go on where another face comes",
        "mdhr_jax/infer/timeline.py",
        "if before and square.face == before.face and missing <= hold:",
        "if before and missing <= hold:",
        ("tests/infer",),
    ),
    Fault(
        "last-row",
        "off by one: a resumed run loses the metrics of the checkpoint's own step",
        "mdhr_jax/run/writers.py",
        'row["step"] <= step',
        'row["step"] < step',
        ("tests/run/writers_test.py", "tests/train_test.py"),
    ),
    Fault(
        "half-of-the-devices",
        "an ignored axis: devices of one fsdp group all compute the same clips",
        "mdhr_jax/machine/sharding.py",
        'PartitionSpec(("data", "fsdp"))',
        'PartitionSpec("data")',
        ("tests/machine/sharding_test.py", "tests/train_test.py", "tests/numerics/steps_test.py"),
    ),
)


class Result(NamedTuple):
    """Which test caught a fault, in which of `RUNS`; None if none did."""

    name: str
    test: str | None
    run: str | None


def catch(fault, runs=tuple(RUNS), *, own=False, tree=REPOSITORY):
    """The first test of these runs that fails in a copy of the tree with the fault."""
    near = [name for name in fault.tests if (tree / name).exists()]
    others = ["tests", *(f"--ignore={name}" for name in near)]
    with tempfile.TemporaryDirectory() as folder:
        copy = planted(fault, pathlib.Path(folder), tree)
        for run in runs:
            for paths in (near,) if own else (near, others):
                if test := _first_failure(copy, RUNS[run], paths):
                    return Result(fault.name, test, run)
    return Result(fault.name, None, None)


def planted(fault, folder, tree=REPOSITORY):
    """A copy of a tree's tracked files below a folder, with the fault, and what they need."""
    copy = folder / tree.name
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=tree, text=True)
    for name in filter(None, listed.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, copy / name, follow_symlinks=False)
    for place in ("../shared", ".venv-torch", ".pytest_cache/jax"):
        if (tree / place).exists():
            (copy / place).parent.mkdir(exist_ok=True)
            (copy / place).symlink_to((tree / place).resolve())
    file = copy / fault.file
    text = file.read_text()
    assert text.count(fault.old) == 1, f"{fault.name}: stands {text.count(fault.old)} times"
    file.write_text(text.replace(fault.old, fault.new))
    return copy


def _first_failure(copy, marked, paths):
    # Not the installed package: PYTHONPATH comes before what an editable installation adds.
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", "--numprocesses=0"]
    command += ["-m", marked, "--ignore=tests/faults_test.py", *paths]
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if found := re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE):
        return found[1]
    fine = pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED
    assert done.returncode in fine, done.stdout + done.stderr
    return None


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    known = {fault.name: fault for fault in FAULTS}
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--short", dest="runs", action="store_const", const=2, default=1)
    parser.add_argument("--all", dest="runs", action="store_const", const=3)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    runs, results = tuple(RUNS)[: asked.runs], []
    for name in asked.names or known:
        results.append(catch(known[name], runs, own=asked.own))
        _, test, run = results[-1]
        print(f"{name}: " + (f"{test} ({run})" if test else "NOT CAUGHT"), flush=True)
        if asked.json:
            asked.json.write_text(json.dumps([r._asdict() for r in results], indent=2) + "\n")
    caught = [result.run for result in results if result.run]
    each = ", ".join(f"{caught.count(run)} by {run}" for run in runs)
    print(f"{len(caught)} of {len(results)} caught: {each}")


if __name__ == "__main__":
    main()
