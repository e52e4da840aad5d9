# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdhr_jax import facs
from mdhr_jax.numerics import losses

ONES = jnp.ones(1)
FLOOR = np.float32(1e-8)


def _random(layout=facs.DISFA, frames=(2, 5)):
    """Scores, 0/1 labels, a mask, class weights and region logits of random frames."""
    rng = np.random.default_rng(0)
    n = len(layout.aus)
    scores = jnp.asarray(rng.uniform(0.1, 0.9, (*frames, n)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, (*frames, n)), jnp.int32)
    mask = jnp.asarray(rng.uniform(size=(*frames, n)) < 0.8)
    weights = jnp.asarray(rng.uniform(0.5, 2, n), jnp.float32)
    logits = tuple(
        jnp.asarray(rng.normal(size=(*frames, region.combinations)), jnp.float32)
        for region in layout.regions
    )
    return scores, labels, mask, weights, logits


def _one(score, label):
    """Weighted asymmetric loss of a single score."""
    label = jnp.array([[float(label)]])
    return losses.weighted_asymmetric(score.reshape(1, 1), label, jnp.ones((1, 1), bool), ONES)


def test_weighted_asymmetric_loss_equals_hand_computed_values():
    scores, labels = jnp.array([[0.8, 0.25], [0.4, 0.5]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    expected = -np.mean(
        [2 * np.log(0.8), 0.5 * 0.25 * np.log(0.75), 2 * 0.4 * np.log(0.6), 0.5 * np.log(0.5)]
    )
    mask = jnp.ones((2, 2), bool)
    loss = losses.weighted_asymmetric(scores, labels, mask, jnp.array([2.0, 0.5]))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_masked_loss_equals_the_loss_of_the_known_labels():
    scores, labels, mask, weights, _ = _random()
    loss = losses.weighted_asymmetric(scores, labels, mask, weights)
    p, y, w = (np.asarray(jnp.broadcast_to(x, mask.shape))[mask] for x in (scores, labels, weights))
    np.testing.assert_allclose(
        loss, -np.mean(w * (y * np.log(p) + p * (1 - y) * np.log(1 - p))), rtol=1e-6
    )


def test_unknown_labels_change_neither_loss_nor_gradient():
    scores, labels, mask, weights, logits = _random()

    def total(scores, logits, labels):
        au_loss = losses.weighted_asymmetric(scores, labels, mask, weights)
        return au_loss + losses.region_cross_entropy(logits, labels, mask, facs.DISFA)

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    unknown = jnp.where(mask, labels, -1)
    expected, found = both(scores, logits, labels), both(scores, logits, unknown)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(np.asarray(found[1][0])[~np.asarray(mask)], 0)


def test_loss_without_any_known_label_is_0():
    scores, labels, mask, weights, logits = _random()
    none = jnp.zeros_like(mask)
    assert losses.weighted_asymmetric(scores, labels, none, weights) == 0
    assert losses.region_cross_entropy(logits, labels, none, facs.DISFA) == 0


def test_gradient_of_the_clamped_log_is_full_at_the_floor_and_0_below():
    below, above = np.nextafter(FLOOR, np.float32(0)), np.nextafter(FLOOR, np.float32(1))
    points = jnp.array([0, below, FLOOR, above, 1])
    gradient = jax.vmap(jax.grad(losses.clamped_log))(points)
    np.testing.assert_allclose(gradient, [0, 0, 1 / FLOOR, 1 / above, 1], rtol=1e-6)
    np.testing.assert_allclose(losses.clamped_log(points)[:3], np.log(FLOOR), rtol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_at_the_ends_have_finite_loss_and_gradient(score, label):
    loss, gradient = jax.value_and_grad(_one)(jnp.array(score), label)
    assert np.isfinite(loss) and np.isfinite(gradient)


def test_no_gradient_passes_the_focal_factor():
    p = 0.3
    gradient = jax.grad(_one)(jnp.array(p), 0)
    np.testing.assert_allclose(gradient, p / (1 - p), rtol=1e-6)  # of -f log(1-p) with f = p fixed


def test_gradient_of_the_weighted_asymmetric_loss_equals_the_formula():
    scores, labels, mask, weights, _ = _random()
    gradient = jax.grad(losses.weighted_asymmetric)(scores, labels, mask, weights)
    p, y, w = (np.asarray(x, np.float64) for x in (scores, labels, weights))
    expected = np.where(mask, -w * (y / p - p * (1 - y) / (1 - p)), 0) / np.sum(mask)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("layout", [facs.BP4D, facs.DISFA], ids=lambda x: x.name)
def test_region_cross_entropy_equals_a_naive_loop(layout):
    _, *arrays, _, logits = _random(layout)
    loss = losses.region_cross_entropy(logits, *arrays, layout)
    labels, mask = map(np.asarray, arrays)
    terms = []
    for region, z in zip(layout.regions, map(np.asarray, logits), strict=True):
        aus, found = layout.au_indices(region), []
        for frame in np.ndindex(labels.shape[:2]):
            if mask[frame][aus].all():
                number = int("".join(map(str, labels[frame][aus])), 2)
                found.append(np.log(np.exp(z[frame]).sum()) - z[frame][number])
        terms.append(np.mean(found))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_a_frame_with_an_unknown_au_is_left_out_of_that_aus_region_only():
    _, labels, mask, _, logits = _random()
    all_known = jnp.ones_like(mask)
    au6_unknown = all_known.at[0, 0, facs.DISFA.aus.index(6)].set(False)
    gradients = jax.grad(losses.region_cross_entropy)(logits, labels, au6_unknown, facs.DISFA)
    expected = jax.grad(losses.region_cross_entropy)(logits, labels, all_known, facs.DISFA)
    np.testing.assert_array_equal(gradients[0], expected[0])
    np.testing.assert_array_equal(gradients[2], expected[2])
    np.testing.assert_array_equal(gradients[1][0, 0], 0)
    np.testing.assert_allclose(gradients[1][0, 1], expected[1][0, 1] * 10 / 9, rtol=1e-5)


def test_gradient_of_the_region_cross_entropy_equals_finite_differences():
    _, labels, mask, _, logits = _random()
    direction = tuple(jnp.sin(jnp.arange(z.size)).reshape(z.shape) for z in logits)

    def along(step):
        moved = tuple(z + step * d for z, d in zip(logits, direction, strict=True))
        return losses.region_cross_entropy(moved, labels, mask, facs.DISFA)

    step = 0.05
    expected = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(along)(0.0), expected, rtol=1e-2)


def test_region_cross_entropy_of_bfloat16_logits_is_computed_in_float32():
    _, labels, mask, _, logits = _random()
    narrow = tuple(z.astype(jnp.bfloat16) for z in logits)
    wide = tuple(z.astype(jnp.float32) for z in narrow)
    found = losses.region_cross_entropy(narrow, labels, mask, facs.DISFA)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(
        found, losses.region_cross_entropy(wide, labels, mask, facs.DISFA)
    )


def test_region_cross_entropy_without_heads_is_0():
    _, labels, mask, _, _ = _random()
    assert losses.region_cross_entropy((), labels, mask, facs.DISFA) == 0


def test_the_papers_sums_are_the_means_times_what_is_summed_over():
    rng = np.random.default_rng(0)
    clips, frames, layout = 2, 5, facs.DISFA
    shape = (clips, frames, len(layout.aus))
    scores = jnp.asarray(rng.uniform(0.1, 0.9, shape), jnp.float32)
    labels, mask = jnp.asarray(rng.integers(0, 2, shape)), jnp.ones(shape, bool)
    logits = tuple(
        jnp.asarray(rng.normal(size=(clips, frames, region.combinations)), jnp.float32)
        for region in layout.regions
    )
    mean, total = (
        (
            losses.weighted_asymmetric(scores, labels, mask, jnp.ones(shape[-1]), reduction),
            losses.region_cross_entropy(logits, labels, mask, layout, reduction),
        )
        for reduction in (losses.REDUCTIONS["mean"], losses.REDUCTIONS["sum"])
    )
    np.testing.assert_allclose(total[0], mean[0] * frames * shape[-1], rtol=1e-5)
    np.testing.assert_allclose(total[1], mean[1] * frames * len(layout.regions), rtol=1e-5)


def test_the_edges_classes_say_which_of_two_aus_are_active():
    labels = jnp.array([[1, 0, 1]])
    wanted = [3, 2, 3, 1, 0, 1, 3, 2, 3]  # 2 y_i + y_j
    certain = 50 * jax.nn.one_hot(jnp.array([wanted]), 4)
    mask = jnp.ones((1, 3), bool)
    assert losses.edge_cross_entropy(certain, labels, mask) < 1e-6
    # Without the third AU, only edges between the first two count.
    wrong = certain.at[0, jnp.array([2, 5, 6, 7, 8])].set(0)
    assert losses.edge_cross_entropy(wrong, labels, mask.at[0, 2].set(False)) < 1e-6
    np.testing.assert_allclose(
        losses.edge_cross_entropy(wrong, labels, mask), 5 / 9 * np.log(4), rtol=1e-5
    )
    # Labels of one side follow those of the nodes.
    sided = jnp.array([[1, 0, 1, 0, 1]])
    assert losses.edge_cross_entropy(certain, sided, jnp.ones((1, 5), bool)) < 1e-6
    assert losses.edge_cross_entropy((), labels, mask) == 0
