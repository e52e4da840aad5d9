# SPDX-License-Identifier: Apache-2.0
"""The recipe against numbers of the reference recipe (first value, last value, sum)."""

import numpy as np
import pytest

from mdhr_jax.verify import golden

SEED = 1

# A name and shape for every rule of kind and place: first value, last value, sum.
WEIGHTS = {
    # Filters; those with more than three inputs are centred.
    ("Backbone.conv1.weight", (2, 3, 2, 2)): (-0.20467961, 0.37106404, 0.80489986),
    ("TCN.temporal_cnn.0.weight", (2, 1, 5)): (-0.55842370, -0.70929945, 1.63409391),
    ("Backbone.layer1.0.conv1.weight", (3, 4, 1, 1)): (-0.06746251, 0.24045929, 0),
    ("MFD.conv1.weight", (2, 4, 1, 1)): (-0.38830039, -0.29822156, 0),
    ("Backbone.layers.0.blocks.0.mlp.fc1.weight", (2, 5)): (0.25477102, -0.55003512, 0),
    ("Backbone.layers.1.downsample.reduction.weight", (2, 4)): (-0.44714296, -0.29097870, 0),
    ("CRM.gat.linear.weight", (2, 4)): (-0.18238284, -0.27252281, 0),
    ("LRM.up_fc.weight", (2, 4)): (1.25436163, 17.49739456, 0),
    ("MFD.weight.weight", (2, 4, 1, 1)): (3.98588753, -1.50895071, 0),
    # Biases.
    ("LRM.up_fc.bias", (3,)): (-0.05038486, 0.14395125, 0.10642196),
    ("CRM.gat.bias", (3,)): (-0.06631795, 0.03975567, -0.07871939),
    # Norms.
    ("Backbone.layer2.0.bn2.weight", (3,)): (1.16402400, 0.78816015, 3.02656883),
    ("Backbone.layer2.0.bn3.weight", (3,)): (0.46509442, 0.48400158, 1.35803106),
    ("Backbone.layer2.0.bn3.bias", (3,)): (0.17053260, -0.04982414, 0.31859259),
    ("Backbone.layer2.0.downsample.1.weight", (3,)): (0.96998310, 1.05345309, 3.03284919),
    ("Backbone.layers.1.downsample.norm.weight", (3,)): (1.03945684, 0.95921594, 3.04172820),
    ("TCN.bn.bias", (3,)): (-0.55726242, 0.37401515, 0.01633754),
    ("TCN.bn.running_var", (3,)): (1.04759777, 1.16225016, 2.86726904),
    ("MFD.bn.running_var", (3,)): (0.06163813, 0.05690915, 0.17604782),
    ("MFD.bn1.running_var", (3,)): (0.99882698, 1.00910771, 2.90556926),
    ("MFD.wbn1.running_mean", (3,)): (0.18756849, -0.26505980, 0.04744037),
    # The rest.
    ("Backbone.layers.0.blocks.0.attn.relative_position_bias_table", (169, 2)): (
        -0.72157717,
        0.22060901,
        6.92024938,
    ),
    ("CRM.gat.scoring_fn_source", (1, 1, 4)): (0.24352863, -0.15100889, 0.65247394),
    ("node_classifier.sc", (3, 2)): (-0.69194776, 1.41264522, 1.64538890),
}


@pytest.mark.parametrize(("entry", "expected"), WEIGHTS.items(), ids=lambda x: x[0])
def test_weights_equal_the_recipes(entry, expected):
    name, shape = entry
    weight = golden.weight(name, shape, SEED)
    assert weight.shape == shape and weight.dtype == np.float32
    found = weight.flat[0], weight.flat[-1], weight.sum(dtype=np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_weights_depend_on_name_and_seed():
    draws = [("LRM.up_fc.bias", 1), ("LRM.up_fc.bias", 2), ("LRM.mid_fc.bias", 1)]
    assert len({golden.weight(name, (3,), seed).tobytes() for name, seed in draws}) == 3


@pytest.mark.parametrize("name", ["TCN.temporal_cnn.0.kernel", "TCN.bn.num_batches_tracked"])
def test_an_entry_without_a_rule_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        golden.weight(name, (3,), SEED)


def test_clips_equal_the_recipes():
    clips = golden.clips(1, 3, seed=7)
    assert clips.shape == (1, 3, 224, 224, 3) and clips.dtype == np.float32
    points = clips[0, 0, 0, 0, 0], clips[0, 2, 100, 37, 1], clips[0, 1, 223, 223, 2]
    np.testing.assert_allclose(points, (1.0615418, -1.4806069, -0.89431554), rtol=1e-6)
    wide = clips.astype(np.float64)
    np.testing.assert_allclose((wide.mean(), wide.std()), (0.1168759185, 1.1266502884), rtol=1e-6)


def test_samples_are_taken_at_the_recipes_positions():
    np.testing.assert_array_equal(golden.sample(np.arange(1000), 4), [0, 761, 522, 283])
    np.testing.assert_array_equal(golden.sample(np.arange(1000).reshape(10, 100), 2), [0, 761])


def test_a_sample_of_a_small_array_holds_each_entry_once():
    np.testing.assert_array_equal(np.sort(golden.sample(np.arange(8), 4096)), np.arange(8))


def test_test_pictures_equal_the_recipes():
    picture = golden.picture(40, 30, seed=5)
    assert picture.shape == (40, 30, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, 0], [103, 157, 150])
    np.testing.assert_array_equal(picture[-1, -1], [152, 185, 73])
    assert picture.sum(dtype=np.int64) == 369819
