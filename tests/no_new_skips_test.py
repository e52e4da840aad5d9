# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import subprocess
import sys

import pytest

from tests import no_new_skips

TESTS = pathlib.Path(__file__).parent
TINY = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.skip(reason="no GPU here")
def test_known(number):
    pass

def test_runs():
    pass
"""
NEW = """
def test_new():
    pytest.skip("PyTorch is not here")
"""
MODULE = "import pytest\npytest.importorskip('nothing_of_the_kind', reason='no extra here')\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "asked", "processes", "said"),
    [
        ({"tiny_test.py": TINY}, "1", 0, None),
        ({"tiny_test.py": TINY + NEW}, "1", 2, "tiny_test.py::test_new: Skipped: PyTorch is not"),
        ({"tiny_test.py": TINY + NEW}, "", 0, None),
        (
            {"tiny_test.py": TINY, "other_test.py": MODULE},
            "1",
            0,
            "other_test.py: Skipped: no extra",
        ),
    ],
)
def test_a_skip_that_is_not_listed_fails_where_that_is_asked_for(
    tmp_path, files, asked, processes, said
):
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / no_new_skips.LIST).write_text("# why\n\ntiny_test.py::test_known  a GPU\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no_new_skips", "-p", "xdist", *files]
    environment = os.environ | {
        "PYTHONPATH": str(TESTS),
        "MDHR_NO_NEW_SKIPS": asked,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [*command, f"--numprocesses={processes}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said or "passed") in done.stdout, done.stdout + done.stderr
    assert done.returncode == (1 if said else 0)
    assert ("not in tests/skips.txt" in done.stdout) == bool(said)


def test_the_list_names_tests_that_there_are():
    for text in no_new_skips.listed((TESTS / "skips.txt").read_text()):
        file, double, function = text.partition("::")
        assert not double or f"def {function}(" in (TESTS.parent / file).read_text(), text
