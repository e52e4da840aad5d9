# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from mdhr_jax import errors
from mdhr_jax.configs import base
from mdhr_jax.run.recipe import Recipe


def test_a_recipe_keeps_every_value_and_gives_it_back():
    config = base.get_config()
    recipe = Recipe.of(config)
    assert recipe.values() == config.to_dict()
    assert Recipe.of_values(json.loads(json.dumps(recipe.values()))) == recipe
    config.seed = 7
    assert recipe.seed == 0


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("layout", "layout"),
        ("protocol", "protocol"),
        ("precision", "dtype"),
        ("loss_reduction", "reduction"),
        ("evaluation_crop", "transform"),
    ],
)
def test_a_name_is_refused_when_it_is_asked_what_it_stands_for(key, name):
    config = base.get_config()
    config[key] = "nothing"
    recipe = Recipe.of(config)
    with pytest.raises(errors.InputError, match=rf"config\.{key}.* is unknown; choose from"):
        getattr(recipe, name)


def test_pictures_that_the_backbone_does_not_take_are_refused(tiny_config):
    tiny_config.image_size = 33
    with pytest.raises(errors.InputError, match=r"image_size=33: .* takes multiples of 32"):
        _ = Recipe.of(tiny_config).tested
