# SPDX-License-Identifier: Apache-2.0
"""The list of planted faults is one of this tree; `python -m tests.faults` plants them."""

from tests import faults


def test_every_fault_can_be_planted():
    for fault in faults.FAULTS:
        text = (faults.REPOSITORY / fault.file).read_text()
        assert text.count(fault.old) == 1, fault.name
        assert fault.new != fault.old
        assert all((faults.REPOSITORY / name).exists() for name in fault.tests), fault.name
    assert len({fault.name for fault in faults.FAULTS}) == len(faults.FAULTS)
