# SPDX-License-Identifier: Apache-2.0
"""Eight simulated CPU devices for every test, and a tiny rendered data set with a run to match."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from einops import rearrange
from ml_collections import ConfigDict

from mdhr_jax import facs, quickstart
from mdhr_jax.configs import base
from mdhr_jax.configs import quickstart as quickstart_config
from mdhr_jax.data import list_files
from mdhr_jax.data.builders import rendered
from mdhr_jax.machine import compile_cache, sharding
from mdhr_jax.run import checkpoint, config_check, directory, kinds, provenance, seen
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.run.trained import abstract_state
from mdhr_jax.studies import experiments
from tests.no_new_skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # of a machine with a GPU, too
jax.config.update("jax_num_cpu_devices", 8)
# What was compiled for the last save need not be compiled for this one.
jax.config.update(
    "jax_compilation_cache_dir", str(pathlib.Path(__file__).parents[1] / ".pytest_cache/jax")
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
# Commands that tests start share what they compile, but may be killed while they write it.
os.environ[compile_cache.VARIABLE] = tempfile.mkdtemp()
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
SHARED = pathlib.Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Compiling costs more than running tiny shapes, so XLA optimises little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def quick_compilation_elsewhere(monkeypatch):
    """The same for processes that a test starts."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(scope="session")
def rendered_set(tmp_path_factory):
    """Six people, two short videos each, 64 pixels, layout bp4d."""
    out = tmp_path_factory.mktemp("rendered") / "bp4d"
    return rendered.build(
        out,
        facs.BP4D,
        seed=3,
        subjects=6,
        videos_per_subject=2,
        frames_per_video=36,
        image_size=64,
        progress=False,
    )


@pytest.fixture
def two_aus():
    """A layout of AU01 and AU12."""
    regions = (facs.Region("up", facs.UPPER, (1,)), facs.Region("down", facs.LOWER, (12,)))
    return facs.AuLayout("two", (1, 12), regions, region_blocks=False, fps=25.0)


def _table_cells(table, row):
    """A row of a `report.tables.Table`: value by column."""
    (values,) = [r.values for r in table.rows if r.name == row]
    return dict(zip(table.columns, values, strict=True))


@pytest.fixture
def table_cells():
    return _table_cells


@pytest.fixture
def one_device(monkeypatch):
    """Runs use one device: eight simulated ones wait for each other on two cores."""
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)


@pytest.fixture
def stop_at_step(monkeypatch):
    """Makes the run stop, as by Ctrl-C, when a step's batch goes to the devices."""
    put_batch = sharding.put_batch

    def arrange(step):
        steps_before = iter(range(1, step))

        def put(mesh, batch):
            if "augment" in batch and next(steps_before, None) is None:
                monkeypatch.setattr(sharding, "put_batch", put_batch)
                raise KeyboardInterrupt
            return put_batch(mesh, batch)

        monkeypatch.setattr(sharding, "put_batch", put)

    return arrange


@pytest.fixture
def tiny_config(rendered_set):
    """Every slot of the model, as small as it gets: eight steps of eight clips."""
    config = base.get_config()
    config.data = str(rendered_set.path)
    config.clip_length = 4
    config.image_size = 32
    config.model.backbone = "resnet_narrow"
    config.model.features = 8
    config.model.dynamics.k = 1
    config.learning_rate = 1e-3
    config.epochs = 8.0
    config.eval_every = 4
    config.checkpoint_every = 3
    return config


@pytest.fixture
def as_graphau():
    """Makes of a configuration that of a GraphAU's stage 2, of clips of one frame."""

    def changed(config, **slots):
        config = config.copy_and_resolve_references()
        config.model = ConfigDict(kinds.changed(config.model.to_dict(), "graphau") | slots)
        config.clip_length, config.clips_per_video, config.jitter_order = 1, 0, "random"
        config.steps, config.epochs = 8, 0.0
        return config

    return changed


@pytest.fixture(params=["mdhr", "graphau"])
def config_of_a_kind(request, tiny_config, as_graphau):
    """The tiny configuration of every kind of model."""
    return tiny_config if request.param == "mdhr" else as_graphau(tiny_config)


@pytest.fixture
def tiny_quickstart(monkeypatch, one_device):
    """The quickstart's path with six people and five steps."""
    get_config = quickstart_config.get_config

    def tiny_config():
        config = get_config()
        config.image_size, config.batch_size, config.eval_batch_size = 32, 8, 8
        config.model.features, config.epochs, config.warmup_epochs = 8, 2.5, 0.0
        return config

    monkeypatch.setattr(quickstart_config, "get_config", tiny_config)
    monkeypatch.setattr(quickstart, "SUBJECTS", 6)
    monkeypatch.setattr(quickstart, "VIDEOS_PER_SUBJECT", 1)
    monkeypatch.setattr(quickstart, "FRAMES_PER_VIDEO", 12)


@pytest.fixture
def make_run(tiny_config, tmp_path, one_device):
    """Runs with random values, as if they had been trained."""

    def make(name, **keys):
        config = tiny_config.copy_and_resolve_references()
        config.protocol = "last"
        config.update_from_flattened_dict(keys)
        recipe = Recipe.of(config)
        source = recipe.open_data()
        learned = provenance.Learned.of(source, seen.in_training(recipe, source))
        directory.claim(tmp_path / name, recipe, learned)
        shapes, _ = abstract_state(recipe)
        rng = np.random.default_rng(config.seed)
        state = jax.tree.map(
            lambda x: jnp.asarray(rng.uniform(0.5, 1, x.shape), x.dtype),
            {"params": shapes["params"], "batch_stats": shapes["batch_stats"]},
        )
        state["step"] = jnp.int32(9)
        checkpoint.save(directory.checkpoints(tmp_path / name), "last", 9, state)
        return tmp_path / name

    return make


@pytest.fixture
def config_file(tiny_config, tmp_path):
    """Writes `tiny_config` into a configuration file, as a user would, and returns the file."""

    def write():
        values = json.dumps(config_check.flatten(tiny_config.to_dict()))
        file = tmp_path / "tiny.py"
        file.write_text(
            "import json\nfrom mdhr_jax.configs import base\n\n\n"
            "def get_config():\n"
            "    config = base.get_config()\n"
            f"    config.update_from_flattened_dict(json.loads('{values}'))\n"
            "    return config\n"
        )
        return file

    return write


def _write_lists(root, layout, fold, split, paths, labels, release="MDHR"):
    """Write path, label and region or relation list; unknown labels count as 0 in the latter."""
    names = list_files.NAMES[release][layout.name]
    folder = root / names.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.asarray(labels)
    active = (labels == 1).astype(int)
    rows = {
        "path": [[path] for path in paths],
        "label": labels,
        "region": active @ layout.bit_weights,
        "relation": rearrange(2 * active[:, :, None] + active[:, None], "m i j -> m (i j)"),
    }
    for kind in rows.keys() & names.patterns.keys():
        text = "".join(" ".join(map(str, line)) + "\n" for line in rows[kind])
        (folder / names.file(kind, fold, split)).write_text(text)


@pytest.fixture(scope="session")
def write_lists():
    return _write_lists


def _random_counts(rng, hits=10, people=12, aus=3):
    """tp, fp, tn, fn of each person and AU, out of 40 frames."""
    tp = rng.integers(0, 5, (people, aus)) + hits
    fp = rng.integers(0, 10, (people, aus))
    fn = 20 - tp
    return np.stack([tp, fp, 20 - fp, fn], axis=-1)


@pytest.fixture
def random_counts():
    return _random_counts


def _finished_run(variant, seed, counts, fold=1):
    """What an experiment leaves whose test subjects have these counts, `(s, n, 4)`, of 50 frames.

    Each fold has its own people.
    """
    config = {"layout": "bp4d", "data": "rendered", "protocol": "last", "threshold": 0.5}
    people = [f"S{fold}{number:02d}" for number in range(len(counts))]
    counts = np.array(counts).tolist()
    return experiments.Run(variant, seed, fold, 8, config, {}, people, counts, 60.0, 50)


@pytest.fixture
def finished_run():
    return _finished_run


@pytest.fixture(scope="session")
def faces_extra():
    """What MTCNN needs."""
    pytest.importorskip("lz4", reason="the extra [faces] is not installed")
    if not importlib.util.find_spec("mtcnn"):
        pytest.skip("the extra [faces] is not installed")


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks by name, which imports its neighbours; gone afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = [file.stem for file in BENCHMARKS.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


TORCH = pathlib.Path(__file__).parents[1] / ".venv-torch/bin/python"


@pytest.fixture(scope="session")
def torch_python():
    """The Python of PyTorch's own environment."""
    if not TORCH.exists():
        pytest.skip("PyTorch is not here; bash launch/torch_env.sh installs it where it can")
    return TORCH


@pytest.fixture
def run_torch(torch_python, tmp_path):
    """Runs a script with PyTorch in `tmp_path`, in PyTorch's own environment."""

    def run(script, *arguments):
        command = [torch_python, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
