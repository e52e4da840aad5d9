# SPDX-License-Identifier: Apache-2.0
"""Installed from a wheel, editable, or not at all: configurations are there by name, and an
installed package is one module, `mdhr_jax`."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

from mdhr_jax.commands import flags

REPOSITORY = pathlib.Path(__file__).parents[1]
TWO_STEPS = (
    *("clips_per_video=1", "image_size=32", "batch_size=8", "eval_batch_size=8", "epochs=2.0"),
    *("warmup_epochs=0.0", "model.features=8", "eval_every=2", "checkpoint_every=2"),
)
FOUND = """
import importlib.util
import mdhr_jax
from mdhr_jax.commands import flags
print(mdhr_jax.__file__, importlib.util.find_spec("configs") is not None, *flags.CONFIGS)
"""


def _run(*command, at, **variables):
    own = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=at, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what the package is built from: building leaves files there."""
    place = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, place)
    for name in ("configs", "mdhr_jax"):
        unread = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, place / name, symlinks=True, ignore=unread)
    return place


def _wheel(source, out):
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out)
    _run(sys.executable, "-m", "pip", "wheel", *options, source, at=out)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    return _wheel(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def python(tmp_path):
    """That of a fresh environment, which borrows the libraries of this one.

    Files .pth are not read in directories that such a file names, so that what is editable in this
    environment is not there.
    """
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    own = sysconfig.get_path("purelib", "venv", {"base": place})
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    pathlib.Path(own, "libraries.pth").write_text("\n".join(libraries))
    return place / "bin/python"


@pytest.fixture(params=["wheel", "editable", "checkout"])
def installed(request, python, sources, tmp_path):
    """Runs that Python elsewhere, where mdhr_jax is known as the parameter says; its origin."""
    variables, options = {}, ["--no-deps", "--no-index", "--ignore-installed"]
    if request.param == "wheel":
        options += [request.getfixturevalue("wheel")]
    elif request.param == "editable":
        options += ["--no-build-isolation", "--editable", sources]
    if request.param == "checkout":
        variables = {"PYTHONPATH": str(sources)}
    else:
        _run(python, "-m", "pip", "install", *options, at=tmp_path)
    origin = python.parents[1] if request.param == "wheel" else sources
    (tmp_path / "elsewhere").mkdir()
    return lambda *words: _run(python, *words, at=tmp_path / "elsewhere", **variables), origin


@pytest.mark.slow
def test_configurations_are_known_wherever_one_stands(installed, request):
    run, origin = installed
    file, beside, *names = run("-c", FOUND).split()
    assert pathlib.Path(file).is_relative_to(origin)
    assert names == [*flags.CONFIGS]
    # A checkout on PYTHONPATH has everything that lies in it.
    assert beside == str("checkout" in request.node.name)


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_two_steps_of_an_installed_configuration(installed, rendered_set, tmp_path):
    run, _ = installed
    keys = [f"--config.{key}" for key in (*TWO_STEPS, f"data={rendered_set.path}")]
    run("-m", "mdhr_jax.cli", "train", "--config", "quickstart", "--workdir", "run", *keys)
    *_, last = (tmp_path / "elsewhere/run/metrics.jsonl").read_text().splitlines()
    assert json.loads(last)["step"] == 2


@pytest.mark.slow
def test_a_wheel_holds_the_package_alone_and_all_of_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"mdhr_jax"}
    held = {name for name in names if ".dist-info/" not in name}
    lie = [*(REPOSITORY / "mdhr_jax").rglob("*.py"), *(REPOSITORY / "mdhr_jax").rglob("*.json")]
    lie += (REPOSITORY / "mdhr_jax/configs").glob("*.py")  # a link
    assert held == {str(path.relative_to(REPOSITORY)) for path in lie}


@pytest.mark.slow
def test_a_source_archive_has_no_link_and_gives_the_same_wheel(sources, wheel, tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    _run(sys.executable, "-c", build, at=sources)
    (archive,) = tmp_path.glob("*.tar.gz")
    assert all(member.isfile() or member.isdir() for member in tarfile.open(archive))
    again = zipfile.ZipFile(_wheel(archive, tmp_path))
    assert sorted(again.namelist()) == sorted(zipfile.ZipFile(wheel).namelist())
