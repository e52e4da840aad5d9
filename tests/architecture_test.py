# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package, what each may see, its size, and the libraries that stay at home."""

import ast
import graphlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

PACKAGE = pathlib.Path(__file__).parents[1] / "mdhr_jax"

# Library -> the modules, or rooms, that may import it.
HOMES = {
    "orbax": {"run.checkpoint"},
    "grain": {"data.pipeline"},
    "tensorflow_datasets": {"data.builders", "data.stored"},
    # Where a configuration enters and becomes a recipe, and where studies vary it.
    "ml_collections": {
        *("commands.flags", "train", "run.recipe", "configs"),
        *("studies.experiments", "studies.compare", "studies.crossval"),
    },
    "av": {"faces.decoder"},
    "lz4": {"faces.mtcnn.weights"},
    "cv2": {"faces.yunet"},
    "mtcnn": set(),  # its import asks for TensorFlow; its weights are read as files
    "joblib": set(),
    "torch": set(),
    "tensorflow": set(),
    "pickle": set(),
    "tqdm": {"machine.progress"},
}
# Room, or module beside the rooms -> the others that it may see.
ARROWS = {
    "": set(),
    "facs": set(),
    "errors": set(),
    "pickles": set(),
    "csv_files": {"errors", "machine"},
    "machine": {"errors"},
    "numerics": {"errors", "facs"},
    "models": {"errors", "facs"},
    "synth": {"errors", "facs", "machine"},
    "faces": {"csv_files", "errors", "machine", "numerics", "pickles"},
    "interop": {"errors", "facs", "machine", "models", "pickles"},
    "infer": {"errors", "faces", "facs", "machine"},
    "data": {"csv_files", "errors", "faces", "facs", "machine", "synth"},
    "report": {"errors", "facs", "machine", "numerics"},
    "configs": set(),
    "run": {
        "configs",
        "data",
        "errors",
        "faces",
        "facs",
        "interop",
        "machine",
        "models",
        "numerics",
    },
    "verify": {"data", "errors", "facs", "interop", "models", "numerics"},
    "bench": {"data", "errors", "machine", "numerics", "report", "run"},
    "check_data": {"data", "errors", "machine", "report"},
    "convert": {"errors", "interop", "machine", "run"},
    "train": {"data", "errors", "machine", "numerics", "run"},
    "evaluate": {"data", "errors", "faces", "interop", "machine", "report", "run"},
    "studies": {
        *("configs", "data", "errors", "evaluate", "facs", "machine", "numerics", "report", "run"),
        "train",
    },
    "quickstart": {
        *("configs", "data", "evaluate", "facs", "machine", "numerics", "report", "run", "train"),
    },
    "doctor": {"configs", "data", "errors", "machine", "run", "studies"},
    "commands": {
        *("bench", "check_data", "configs", "convert", "data", "doctor", "errors", "evaluate"),
        *("faces", "facs", "infer", "machine", "quickstart", "run", "studies", "synth", "train"),
        "verify",
    },
    "cli": {"commands", "errors", "machine"},
}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_DISPATCH = 350, 60, 200
TABLE = "configs.base"  # of keys and values, in one function


def _name(path):
    dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return dotted.removesuffix("__init__").strip(".")


FILES = [*PACKAGE.rglob("*.py"), *(PACKAGE / "configs").glob("*.py")]  # the latter is a link
MODULES = {_name(path): path for path in sorted(FILES)}


def _imports(path):
    """Full names; of `from a import b` both."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported_modules(path):
    """Modules of the package."""
    for full in _imports(path):
        package, _, name = full.partition(".")
        if package == PACKAGE.name:
            yield name if name in MODULES else name.rpartition(".")[0]


def test_libraries_stay_at_home():
    for name, path in MODULES.items():
        places = {name, *(name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))}
        for imported in _imports(path):
            homes = HOMES.get(imported.split(".")[0])
            assert homes is None or homes & places, f"{imported} in {path}"


def test_rooms_see_only_what_the_arrows_allow():
    assert {name.split(".")[0] for name in MODULES} == ARROWS.keys()
    seen = {room: set() for room in ARROWS}
    for name, path in MODULES.items():
        room = name.split(".")[0]
        others = {imported.split(".")[0] for imported in _imported_modules(path)} - {room}
        assert others <= ARROWS[room], f"{path} imports {others - ARROWS[room]}"
        seen[room] |= others
    assert seen == ARROWS, "arrows that nothing uses"
    builders = ("data.builders", "data.builders.")
    for name, path in MODULES.items():  # they make sets; what reads sets needs none of them
        if name.startswith("data.") and not name.startswith(builders):
            assert not any(other.startswith(builders) for other in _imported_modules(path)), path


def test_no_room_and_no_module_needs_itself():
    graphlib.TopologicalSorter(ARROWS).prepare()
    graph = {name: set(_imported_modules(path)) - {name, ""} for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_files_and_functions_are_short():
    long = [path for path in MODULES.values() if len(path.read_text().splitlines()) > MOST_LINES]
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and name != TABLE:
                if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{path}:{node.lineno} {node.name}")
    assert not long
    assert len(MODULES["cli"].read_text().splitlines()) < MOST_LINES_OF_DISPATCH


def test_what_is_imported_is_a_declared_dependency_of_a_pinned_version():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in ("faces", "yunet")]
    declared = {_project(need) for needs in (project["dependencies"], *extras) for need in needs}
    pins = (PACKAGE.parent / "constraints.txt").read_text().splitlines()
    assert declared <= {_project(line) for line in pins}
    imported = {name.split(".")[0] for path in MODULES.values() for name in _imports(path)}
    offered = importlib.metadata.packages_distributions()
    for name in imported - {*sys.stdlib_module_names, PACKAGE.name}:
        assert declared & {_project(each) for each in offered[name]}, name


def _project(need):
    """The name of a distribution, of which case, `-`, `_` and `.` are no part."""
    return re.sub("[-_.]+", "-", re.match(r"[\w.-]+", need)[0]).lower()


def test_the_maps_name_what_there_is():
    root = PACKAGE.parent
    for page in ("README.md", "CONTRIBUTING.md"):
        for name in re.findall(r"`([\w/]+\.py)\b", (root / page).read_text()):
            assert any((place / name).exists() for place in (root, PACKAGE)), f"{page}: {name}"


def test_what_stands_above_in_the_maps_sees_what_stands_below():
    rooms = ARROWS.keys() - {""}
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (PACKAGE.parent / page).read_text()
        fences = [part for part in text.split("```") if "commands/" in part and "cli.py" in part]
        lines = {}
        for number, line in enumerate(fences[-1].splitlines()):
            for word in line.strip().partition("   ")[0].split():
                lines[word.removesuffix(".py").removesuffix("/")] = number
        assert rooms <= lines.keys(), f"{page}: {rooms - lines.keys()}"
    for room in rooms:  # as CONTRIBUTING draws them
        assert all(lines[room] <= lines[other] for other in ARROWS[room]), room


def test_the_command_line_starts_without_jax():
    code = "import sys, mdhr_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
