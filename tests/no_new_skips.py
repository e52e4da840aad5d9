# SPDX-License-Identifier: Apache-2.0
"""With `MDHR_NO_NEW_SKIPS=1`, as in CI, a skip that `tests/skips.txt` does not list is a failure.

A pytest plugin: what cannot run here is left out everywhere else without a fuss, and would be left
out for ever where nobody reads who was.
"""

import os

import pytest

LIST = "tests/skips.txt"


def listed(text):
    """What the list names, one a line before two spaces and why: a test, or what a reason says."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.partition("  ")[0] for line in lines]


def _new(config):
    """Skips that are not listed; none where they may be, or in xdist's workers."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("MDHR_NO_NEW_SKIPS") != "1" or not reporter or hasattr(config, "workerinput"):
        return []
    known = listed((config.rootpath / LIST).read_text())
    skipped = (f"{each.nodeid}: {each.longrepr[2]}" for each in reporter.stats.get("skipped", []))
    return [line for line in skipped if not any(text in line for text in known)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if _new(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if new := _new(config):
        terminalreporter.section(f"skipped, but not in {LIST}")
        for line in new:
            terminalreporter.line(line)
