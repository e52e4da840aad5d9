# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax.synth import expression, people

ALL_AUS = list(people.AUS)


def express(person, *aus):
    shown = jnp.array([float(au in aus) for au in ALL_AUS])
    return expression.express(person, shown, jnp.zeros(()))


@pytest.fixture
def relaxed():
    """A young person without a posture of their own."""
    person = people.sample_identity(0, "F001")
    return person._replace(resting=np.zeros(len(ALL_AUS), np.float32), age=np.float32(0))


def test_a_relaxed_face_is_not_pulled(relaxed):
    shown = express(relaxed)
    assert all(pull.du == 0 and pull.dy == 0 for pull in shown.pulls)
    assert shown.lips == (0, 0, 0)
    assert shown.upper_lid == relaxed.upper_lid and shown.lower_lid == relaxed.lower_lid
    assert max(shown.folds) < 0.2


def test_a_posture_looks_like_an_activation_of_its_strength(relaxed):
    resting = np.float32([0.5 * (au == 4) for au in ALL_AUS])
    half = jnp.asarray(resting)
    acting = expression.express(relaxed, half, jnp.zeros(()))
    at_rest = express(relaxed._replace(resting=resting))
    assert acting == at_rest


def test_pressed_lips_do_not_part(relaxed):
    def apart(*aus):
        lips = express(relaxed, *aus).lips
        return lips.up + lips.down + lips.jaw

    assert apart(24) < 0 < apart(24, 25) < 0.3 * apart(25)


def test_lowered_brows_are_raised_less(relaxed):
    """AU 1 with AU 4: up at their inner ends, and drawn together."""

    def inner(*aus):
        pulls = [pull for pull in express(relaxed, *aus).pulls if pull.u == 0.070]
        return sum(pull.du for pull in pulls), sum(pull.dy for pull in pulls)

    together = inner(1, 4)
    assert together[0] == inner(4)[0] < 0
    assert inner(1)[1] < together[1] < 0 < inner(4)[1]
