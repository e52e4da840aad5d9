# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

from mdhr_jax.bench import roofline
from mdhr_jax.configs import base
from mdhr_jax.machine import sharding
from mdhr_jax.numerics import steps
from mdhr_jax.run.programs import build_scoring
from mdhr_jax.run.recipe import Recipe


def test_a_matrix_product_and_its_gradients_are_counted():
    def total(a, b):
        return jnp.sum(a @ b)

    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    (forward,) = roofline.products(jax.jit(total), a, b)
    assert forward == (2 * 3 * 4 * 5, 4 * (3 * 4 + 3 * 5 + 4 * 5), 1)
    gradients = roofline.products(jax.jit(jax.grad(total, argnums=(0, 1))), a, b)
    assert [work.flops for work in gradients] == [120] * 3


@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 4)])
def test_convolutions_and_their_gradients_do_the_same_work(stride, side):
    def total(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=dims
        ).sum()

    work = roofline.products(
        jax.jit(jax.grad(total, argnums=(0, 1))), jnp.ones((2, 8, 8, 3)), jnp.ones((2, 2, 3, 5))
    )
    forward, *gradients = sorted(each.flops for each in work)
    assert forward == gradients[0] == 2 * (2 * side * side * 5) * (2 * 2 * 3)
    # The input's gradient meets padding, too, at stride 1.
    assert gradients[1] == forward * (64 if stride == 1 else side**2) // side**2


def test_the_turns_of_a_loop_are_counted():
    def loop(x):
        return jax.lax.scan(lambda carry, y: (carry @ y, None), x, jnp.ones((7, 4, 4)))[0]

    (work,) = roofline.products(jax.jit(loop), jnp.ones((4, 4)))
    assert (work.flops, work.times) == (2 * 4**3, 7)


def test_each_product_waits_for_arithmetic_or_for_memory():
    device = roofline.Machine(flops=100.0, bandwidth=10.0)
    work = [roofline.Product(1000, 10), roofline.Product(100, 50, times=3)]
    assert roofline.floor(work, device) == pytest.approx(10 + 3 * 5)
    assert roofline.floor(work, device, parameters=2) == pytest.approx(25 + 2 * 28 / 10)


@pytest.mark.long
def test_this_machine_has_a_rate():
    device = roofline.machine(jnp.dtype("float32"))
    assert 1e8 < device.flops < 1e16 and 1e8 < device.bandwidth < 1e14


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "giga"), [("resnet50", 7.178), ("swin_b", 16.298)])
def test_the_network_s_work_is_what_is_known_of_it(backbone, giga, one_device):
    """Multiply-adds per frame of a 16-frame clip, counted by hand elsewhere."""
    config = base.get_config()
    config.model.backbone = backbone
    recipe = Recipe.of(config)
    _, *shapes = steps.split(recipe.outline)
    frames = jax.ShapeDtypeStruct((1, 16, 256, 256, 3), jnp.uint8)
    scoring = build_scoring(recipe, sharding.make_mesh())
    values = jax.eval_shape(scoring.prepare, *shapes)
    work = roofline.products(scoring.step, *values, {"frames": frames})
    flops = sum(each.flops * each.times for each in work)
    assert flops / 16 / 2e9 == pytest.approx(giga, rel=0.01)
