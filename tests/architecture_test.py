# SPDX-License-Identifier: Apache-2.0
"""The arrows between the rooms, and the libraries that one module alone may import."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

PACKAGE = pathlib.Path(__file__).parents[1] / "mdhr_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Library -> where it may be imported.
HOMES = {
    "orbax": {"checkpoint"},
    "grain": {"data.pipeline"},
    "tensorflow_datasets": {"data.builders", "data.stored"},
    "ml_collections": {"cli", "train", "run.recipe", "experiments", "compare", "crossval"},
    "av": {"faces.decoder"},
    "lz4": {"faces.mtcnn.weights"},
    "cv2": {"faces.yunet"},
    "mtcnn": set(),  # its import asks for TensorFlow; its weights are read as files
    "joblib": set(),
    "torch": set(),
    "tensorflow": set(),
    "pickle": set(),
    "tqdm": {"progress"},
}
# Room -> the rooms of the package that it may see.
ARROWS = {
    "facs": set(),
    "errors": set(),
    "files": {"errors"},
    "notes": set(),
    "progress": set(),
    "models": {"models", "facs", "errors"},
    "losses": {"facs"},
    "metrics": set(),
    "bootstrap": {"metrics"},
    "protocol": {"errors"},
    "config_check": {"errors"},
    "run": {
        *("run", "config_check", "facs", "losses", "preprocess", "protocol", "data", "models"),
        "errors",
    },
    "optim": set(),
    "preprocess": {"errors"},
    "steps": {"facs", "losses", "preprocess"},
    "synth": {"synth", "facs", "errors"},
    "data": {
        *("data", "synth", "faces", "facs", "csv_files", "errors", "files", "progress", "locks"),
        *("notes", "workers"),
    },
    "csv_files": {"errors"},
    "locks": {"errors"},
    "workers": {"errors"},
    "pickles": set(),
    "faces": {"faces", "csv_files", "devices", "pickles", "preprocess", "errors"},
    "infer": {"infer", "faces", "preprocess", "facs", "errors", "files", "progress"},
    "interop": {"interop", "pickles", "models", "facs", "errors", "files"},
    "report": {"report", "bootstrap", "metrics", "facs", "errors", "files"},
    "writers": {"errors", "files", "progress"},
    "devices": {"errors"},
    "sharding": {"devices", "errors"},
    "checkpoint": {"hosts", "errors", "files"},
    "hosts": {"errors"},
}


def _name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_libraries_stay_at_home():
    for path in MODULES:
        for imported in _imports(path):
            homes = HOMES.get(imported.split(".")[0])
            if homes is not None:
                assert any(_name(path).startswith(home) for home in homes), f"{imported} in {path}"


def test_rooms_see_only_what_the_arrows_allow():
    for path in MODULES:
        room = _name(path).split(".")[0]
        seen = {name.split(".")[1] for name in _imports(path) if name.startswith("mdhr_jax.")}
        if room in ARROWS:
            assert seen <= ARROWS[room], f"{path} imports {seen - ARROWS[room]}"


def test_what_is_imported_is_a_declared_dependency_of_a_pinned_version():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in ("faces", "yunet")]
    declared = {_project(need) for needs in (project["dependencies"], *extras) for need in needs}
    pins = (PACKAGE.parent / "constraints.txt").read_text().splitlines()
    assert declared <= {_project(line) for line in pins}
    own = {*sys.stdlib_module_names, "mdhr_jax", "configs"}
    configs = PACKAGE.with_name("configs").rglob("*.py")
    imported = {name.split(".")[0] for path in (*MODULES, *configs) for name in _imports(path)}
    offered = importlib.metadata.packages_distributions()
    for name in imported - own:
        assert declared & {_project(each) for each in offered[name]}, name


def _project(need):
    """The name of a distribution, of which case, `-`, `_` and `.` are no part."""
    return re.sub("[-_.]+", "-", re.match(r"[\w.-]+", need)[0]).lower()


def test_the_command_line_starts_without_jax():
    code = "import sys, mdhr_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
