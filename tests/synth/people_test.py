# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np

from mdhr_jax.synth import people


def test_a_person_is_a_function_of_seed_and_name():
    first, again = people.sample_identity(3, "F001"), people.sample_identity(3, "F001")
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert people.sample_identity(4, "F001").eye_x != first.eye_x
    assert people.sample_identity(3, "F002").eye_x != first.eye_x
