# SPDX-License-Identifier: Apache-2.0
"""The list of planted faults is one of this tree; `python -m tests.faults` plants them."""

from tests import faults


def test_a_fault_is_planted_in_a_copy_of_the_tree(tmp_path):
    fault = faults.FAULTS[0]
    copy = faults.planted(fault, tmp_path)
    assert fault.new in (copy / fault.file).read_text()
    assert (copy / "mdhr_jax/configs/base.py").exists()


def test_every_fault_can_be_planted():
    for fault in faults.FAULTS:
        text = (faults.REPOSITORY / fault.file).read_text()
        assert text.count(fault.old) == 1, fault.name
        assert fault.new != fault.old
        assert all((faults.REPOSITORY / name).exists() for name in fault.tests), fault.name
    assert len({fault.name for fault in faults.FAULTS}) == len(faults.FAULTS)
