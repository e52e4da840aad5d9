# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp

from mdhr_jax.synth import expression, people


def test_a_resting_face_has_the_landmarks_of_the_person():
    person = people.sample_identity(0, "F001")
    shape = expression.shape_of(person, jnp.zeros(15))
    assert shape.mouth_width == person.mouth_width
    assert shape.corner_drop == person.mouth_curve
    assert shape.brow_inner_y == person.brow_y
    assert shape.chin_y == person.chin_y
    assert shape.upper_gap == shape.lower_gap == shape.dimple == shape.nose_root == 0
