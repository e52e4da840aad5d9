# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mdhr_jax import facs
from mdhr_jax.models import backbones, layers, mdhr, views
from mdhr_jax.numerics import losses, optim, preprocess, steps

LAYOUT = facs.AuLayout(
    "tiny",
    aus=(1, 2, 12),
    regions=(facs.Region("up", facs.UPPER, (1, 2)), facs.Region("low", facs.LOWER, (12,))),
    region_blocks=False,
    fps=25.0,
)
SLOTS = {
    "dynamics": "none",
    "scales": (4,),
    "k": 2,
    "features": 4,
    "window": "zero",
    "afe": "none",
    "auxiliary": True,
    "edges": "cross_region_activated",
    "temporal": True,
}
OBJECTIVE = steps.Objective(LAYOUT, class_weights=(0.5, 1.0, 1.5), auxiliary_weight=0.1)
SCHEDULE = optim.cosine(1e-2, total_steps=100)
OPTIMIZER = optim.adamw(SCHEDULE, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=5e-4)
SIZE, THRESHOLD = 16, 0.43


class Dropping(nnx.Module):
    """Patches of 8x8 pixels, of which drop-path silences whole frames."""

    channels, features, image_multiple = (4, 4, 4, 4), 4, 8

    def __init__(self, *, rngs):
        self.patches = layers.PatchLinear(8, 3, 4, rngs=rngs)
        self.drop_path = layers.DropPath(0.5)

    def __call__(self, frames, key=None):
        flat = frames.reshape(-1, *frames.shape[2:])
        x = self.drop_path(self.patches(flat), key).reshape(*frames.shape[:2], 2, 2, 4)
        return x, [x] * 4


@pytest.fixture(autouse=True, scope="module")
def setting():
    backbones.BACKBONES["dropping"] = Dropping
    yield
    del backbones.BACKBONES["dropping"]


def _create(rngs):
    return mdhr.MDHR(LAYOUT, backbone="dropping", **SLOTS, rngs=rngs)


def _graph(view):
    return steps.split(view(nnx.eval_shape(lambda: _create(nnx.Rngs(0))), dtype=jnp.float32))[0]


@functools.cache
def _init(seed, *, averages=False):
    return jax.jit(
        lambda: steps.init_state(_create, OPTIMIZER, jax.random.key(seed), averages=averages)
    )()


@functools.cache
def _train_step(seed, **changes):
    step = steps.make_train_step(
        _graph(views.train_view),
        OBJECTIVE,
        OPTIMIZER,
        SCHEDULE,
        transform=functools.partial(preprocess.train, image_size=SIZE),
        key=jax.random.key(seed),
        **changes,
    )
    return jax.jit(step)


@functools.cache
def _eval_step():
    graph = _graph(views.eval_view)
    transform = functools.partial(preprocess.evaluate, image_size=SIZE)
    return jax.jit(steps.make_eval_step(graph, transform=transform))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    batch = {
        "frames": rng.integers(0, 256, (2, 4, 18, 18, 3), np.uint8),
        "labels": rng.integers(0, 2, (2, 4, 3), np.int32),
        "mask": rng.uniform(size=(2, 4, 3)) < 0.8,
        "augment": np.tile(np.float32([1, 2, 1, 0.9, 1.1, 1.2, 0]), (2, 1)),
    }
    return jax.tree.map(jnp.asarray, batch)


def _differ(one, other):
    return [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]


def test_the_state_is_one_plain_dict_that_starts_at_step_0():
    state = _init(0)
    assert set(state) == {"step", "params", "batch_stats", "opt_state"}
    assert state["step"] == 0 and state["step"].dtype == jnp.int32
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert {"kernel", "bias"} == set(state["params"]["backbone"]["patches"])
    assert {"mean", "var"} == set(state["batch_stats"]["static"]["norm"])


def test_initial_parameters_depend_on_the_seed():
    one, other = (_init(seed)["params"]["static"]["linear"]["kernel"] for seed in (0, 1))
    assert (one != other).all()


def test_a_step_changes_parameters_statistics_and_the_step(batch):
    state = _init(0)
    new_state, scalars = _train_step(0)(state, batch)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert new_state["step"] == 1
    for part in ("params", "batch_stats"):
        assert all(_differ(state[part], new_state[part])), part
    assert set(scalars) == {"loss", "au_loss", "region_loss", "gradient_norm", "learning_rate"}
    assert all(np.isfinite(value) for value in scalars.values())
    np.testing.assert_allclose(
        scalars["loss"], scalars["au_loss"] + 0.1 * scalars["region_loss"], rtol=1e-6
    )


def test_the_learning_rate_is_that_of_the_update_about_to_be_made(batch):
    state = _init(0) | {"step": jnp.int32(50)}
    _, scalars = _train_step(0)(state, batch)
    np.testing.assert_allclose(scalars["learning_rate"], 0.5e-2, rtol=1e-5)


def test_drop_path_depends_on_seed_and_step_only(batch):
    state = _init(0)

    def loss(seed, **changes):
        return float(_train_step(seed)(state | changes, batch)[1]["loss"])

    assert loss(0) == loss(0)
    assert len({loss(0), loss(1), loss(0, step=jnp.int32(1)), loss(0, step=jnp.int32(2))}) == 4


def test_steps_on_one_batch_lower_its_loss(batch):
    state, step = _init(0), _train_step(0)
    found = []
    for _ in range(60):
        state, scalars = step(state, batch)
        found.append(float(scalars["loss"]))
    assert np.mean(found[-10:]) < 0.8 * np.mean(found[:10])


def test_masked_labels_do_not_reach_the_new_state(batch):
    step, state = _train_step(0), _init(0)
    other = batch | {"labels": jnp.where(batch["mask"], batch["labels"], -1)}
    expected, found = step(state, batch), step(state, other)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def four_clips():
    """Images, labels and masks as `steps.loss_and_gradients` takes them, as a batch."""
    rng = np.random.default_rng(2)
    batch = {
        "images": rng.normal(size=(4, 4, 16, 16, 3)).astype(np.float32),
        "labels": rng.integers(0, 2, (4, 4, 3), np.int32),
        "mask": np.ones((4, 4, 3), bool),
    }
    batch["mask"][:, 3] = False  # as many known labels in every clip
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def _learn(groups):
    view = functools.partial(views.train_view, groups=groups, drop_path=False)

    def learn(params, stats, batch, key):
        inputs = (batch[name] for name in ("images", "labels", "mask"))
        return steps.loss_and_gradients(_graph(view), OBJECTIVE, params, stats, *inputs, key)[:3]

    return learn


def _run_learn(learn, batch, stats=None):
    state = _init(0)
    stats = stats or state["batch_stats"]
    return jax.jit(learn)(state["params"], stats, batch, jax.random.key(0))


@pytest.mark.slow
def test_micro_batches_learn_what_the_whole_batch_does_with_groups_of_statistics(four_clips):
    losses, gradients, _ = _run_learn(steps.accumulated(_learn(1), 2), four_clips)
    one_after_the_other = jax.tree.map(
        lambda x: jnp.concatenate([x[part::2] for part in (0, 1)]), four_clips
    )
    expected, expected_gradients, _ = _run_learn(_learn(2), one_after_the_other)
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-5)
    close = functools.partial(
        np.testing.assert_allclose, rtol=1e-3, atol=1e-6 * optax.tree.norm(expected_gradients)
    )
    jax.tree.map(close, gradients, expected_gradients)


@pytest.mark.slow
def test_running_statistics_follow_one_micro_batch_after_another(four_clips):
    _, _, found = _run_learn(steps.accumulated(_learn(1), 2), four_clips)
    stats = None
    for part in (0, 1):
        micro_batch = jax.tree.map(lambda x, part=part: x[part::2], four_clips)
        _, _, stats = _run_learn(_learn(1), micro_batch, stats)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, stats)


def test_micro_batches_drop_other_frames(batch):
    twice = jax.tree.map(lambda x: jnp.repeat(x, 2, 0), batch)
    whole = float(_train_step(0)(_init(0), batch)[1]["loss"])
    # With one draw for both the micro-batches, equal here, would have the loss of one of them.
    assert float(_train_step(0, accumulate=2)(_init(0), twice)[1]["loss"]) != whole


def test_the_average_is_of_the_parameters_after_the_steps_and_the_newest_weigh_most(batch):
    plain, averaging = _init(0), _init(0, averages=True)
    passed = []
    for step in range(3):
        plain, _ = _train_step(0)(plain, batch)
        averaging, _ = _train_step(0, ema=0.8)(averaging, batch)
        jax.tree.map(np.testing.assert_array_equal, averaging["trained"], plain["params"])
        passed.append(plain["params"])
        weights = 0.8 ** np.arange(step, -1, -1)
        jax.tree.map(
            lambda average, *each, weights=weights: np.testing.assert_allclose(
                average, np.average(each, axis=0, weights=weights), rtol=1e-4, atol=1e-6
            ),
            averaging["params"],
            *passed,
        )
    jax.tree.map(np.testing.assert_array_equal, averaging["batch_stats"], plain["batch_stats"])
    assert any(_differ(averaging["params"], averaging["trained"]))


@pytest.mark.parametrize("factor", [np.nan, 1e25])  # the gradient's square alone is too large
def test_a_step_that_is_not_finite_leaves_the_average(batch, factor):
    state, _ = _train_step(0, ema=0.8)(_init(0, averages=True), batch)
    wrong = batch | {"labels": batch["labels"] * jnp.float32(factor)}
    found, scalars = _train_step(0, ema=0.8)(state, wrong)
    assert np.isfinite(scalars["loss"]) == np.isfinite(factor)
    assert not np.isfinite(scalars["gradient_norm"])
    for part in ("params", "trained", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, found[part], state[part])


def test_the_objective_adds_the_weighted_auxiliary_loss(batch):
    rng = np.random.default_rng(1)
    outputs = {
        "scores": jnp.asarray(rng.uniform(0.1, 0.9, (2, 4, 3)), jnp.float32),
        "region_logits": tuple(
            jnp.asarray(rng.normal(size=(2, 4, classes)), jnp.float32) for classes in (4, 2)
        ),
    }
    labels, mask = batch["labels"], batch["mask"]
    total, parts = OBJECTIVE(outputs, labels, mask)
    weights = jnp.array([0.5, 1.0, 1.5])
    au_loss = losses.weighted_asymmetric(outputs["scores"], labels, mask, weights)
    region_loss = losses.region_cross_entropy(outputs["region_logits"], labels, mask, LAYOUT)
    assert parts == {"au_loss": au_loss, "region_loss": region_loss}
    np.testing.assert_allclose(total, au_loss + 0.1 * region_loss, rtol=1e-6)


def test_evaluation_sees_the_evaluation_transform(batch):
    state = _init(0)
    scores = _eval_step()(state["params"], state["batch_stats"], batch)

    @jax.jit
    def direct(params, stats, frames):
        images = preprocess.evaluate(frames, image_size=SIZE)
        return steps.forward(_graph(views.eval_view), params, stats, images)

    outputs, stats = direct(state["params"], state["batch_stats"], batch["frames"])
    np.testing.assert_allclose(scores, outputs["scores"], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats, state["batch_stats"])
