# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

from mdhr_jax.bench import profile

Work = profile.Work


def _loss(weights, x):
    with jax.named_scope("backbone"):
        kernel, matrix = weights
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
    with jax.named_scope("motion"):
        return jnp.sin(jnp.tanh(x) @ matrix).sum()


@pytest.fixture
def step():
    """A jitted gradient and its arguments."""
    weights = jnp.ones((3, 3, 3, 3)), jnp.ones((32, 32))
    return jax.jit(jax.value_and_grad(_loss)), (weights, jnp.ones((4, 3, 32, 32)))


def test_instructions_belong_to_a_part_a_direction_and_a_kind(step):
    function, arguments = step
    works = set(profile.works(function.lower(*arguments).compile().as_text()).values())
    assert {
        Work("backbone", False, "convolutions"),
        Work("backbone", True, "convolutions"),
        Work("motion", False, "products"),
        Work("motion", True, "products"),
        Work("motion", False, "rest"),
    } <= works


def test_a_fusion_is_of_the_kind_of_the_product_in_it():
    program = """HloModule jit_f, entry_computation_layout={()->f32[]}

%fused (p: f32[2,2]) -> f32[2,2] {
  %p = f32[2,2]{1,0} parameter(0)
  %dot.1 = f32[2,2]{1,0} dot(%p, %p), metadata={op_name="jit(f)/jvp(motion)/dot_general"}
  ROOT %add.1 = f32[2,2]{1,0} add(%dot.1, %p), metadata={op_name="jit(f)/jvp(motion)/add"}
}

ENTRY %main (a: f32[2,2]) -> f32[2,2] {
  %a = f32[2,2]{1,0} parameter(0), metadata={op_name="a"}
  %sum = f32[2,2]{1,0} add(%a, %a), metadata={op_name="jit(f)/transpose(jvp(backbone))/add_any"}
  ROOT %fusion.1 = f32[2,2]{1,0} fusion(%sum), calls=%fused, metadata={op_name="f/jvp(motion)/add"}
}
"""
    works = profile.works(program)
    assert works["fusion.1"] == Work("motion", False, "products")
    assert works["sum"] == Work("backbone", True, "rest")
    assert works["a"] == Work("other", False, "rest")


def _spent(folder, text):
    return profile.spent(profile.instructions(folder, text), text)


def test_time_is_that_of_the_programs_own_instructions(step, tmp_path):
    function, arguments = step
    program = function.lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    other = jax.jit(lambda x: x @ x)
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(program(*arguments))
        jax.block_until_ready(other(jnp.ones((256, 256))))
    spent = _spent(tmp_path, program.as_text())
    assert all(seconds >= 0 for seconds in spent.values())
    assert spent[Work("backbone", True, "convolutions")] > 0
    assert _spent(tmp_path, other.lower(jnp.ones((256, 256))).compile().as_text()) != spent
