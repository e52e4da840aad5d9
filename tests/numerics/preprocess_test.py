# SPDX-License-Identifier: Apache-2.0
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors
from mdhr_jax.numerics import preprocess

GOLDEN = pathlib.Path(__file__).parents[3] / "shared/reference/golden/preprocess.npz"
needs_golden = pytest.mark.skipif(
    not GOLDEN.exists(), reason="golden vectors (../shared) are not here"
)


def _grey_levels(normalised):
    """The uint8 picture that was normalised."""
    return np.rint((np.asarray(normalised) * preprocess.STD + preprocess.MEAN) * 255).astype(int)


def _random_frames(size, seed=0, shape=(2, 2)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, size, size, 3), np.uint8)


def _draws(image_size, count, seed=0):
    rng = np.random.default_rng(seed)
    limit = preprocess.resized(image_size) - image_size
    places = rng.integers(0, limit + 1, (count, 2))
    flips = rng.integers(0, 2, (count, 1))
    factors = rng.uniform(0.6, 1.4, (count, 3)).round(1)  # short decimals hit whole grey levels
    order = np.zeros((count, 1))
    return np.concatenate([places, flips, factors, order], axis=1).astype(np.float32)


def _train(frames, augment, image_size):
    train = jax.jit(functools.partial(preprocess.train, image_size=image_size))
    return train(jnp.asarray(frames), jnp.asarray(augment, jnp.float32))


def _evaluate(frames, image_size):
    evaluate = jax.jit(functools.partial(preprocess.evaluate, image_size=image_size))
    return evaluate(jnp.asarray(frames))


# Golden vectors.


def _golden_image(height, width, seed):
    """RECIPE section 5: two waves and uniform noise in each channel."""
    random = np.random.RandomState(seed)
    y, x = np.indices((height, width))
    waves = np.empty((height, width, 3))
    for channel in range(3):
        f0, f1, f2, f3 = random.uniform(0.02, 0.15, 4)
        p0, p1 = random.uniform(0, 2 * np.pi, 2)
        sine = 60 * np.sin(f0 * x + f1 * y + p0)
        waves[..., channel] = 127.5 + sine + 45 * np.cos(f2 * x - f3 * y + p1)
    noisy = waves + random.uniform(-25, 25, waves.shape)
    return np.floor(noisy).clip(0, 255).astype(np.uint8)


def _golden_cases(names):
    """(id, image, augment row or None, expected values) for each stored transform."""
    if not GOLDEN.exists():
        return
    golden = np.load(GOLDEN)
    for name in names:
        image = _golden_image(*golden[f"{name}.hw_seed"])
        for j, row in enumerate(golden[f"{name}.train.params"]):
            yield image, np.append(row, 0), golden, f"{name}.train{j}"
        if f"{name}.test.sub" in golden:
            yield image, None, golden, f"{name}.test"


def _assert_golden(result, golden, key):
    assert _grey_levels(result).sum() == golden[f"{key}.u8sum"], key
    flat = np.moveaxis(np.asarray(result), -1, 0).ravel()
    expected = golden[f"{key}.sub"]
    index = np.arange(len(expected)) * 2654435761 % flat.size
    np.testing.assert_allclose(flat[index], expected, rtol=0, atol=1e-6, err_msg=key)


@needs_golden
def test_golden_image_is_rebuilt():
    golden = np.load(GOLDEN)
    image = _golden_image(*golden["wide.hw_seed"]).ravel()
    assert [image.sum(dtype=int), image[0], image[-1]] == golden["wide.image_sum"].tolist()


@needs_golden
def test_host_path_reproduces_golden_pictures():
    for image, row, *golden in _golden_cases(["sq224", "sq256", "sq300", "sq170", "tall", "wide"]):
        if row is None:
            result = preprocess.host_eval(image, 224)
        else:
            result = preprocess.host_train(image, row, 224)
        _assert_golden(result, *golden)


@needs_golden
@pytest.mark.parametrize("name", ["sq224", "sq256", "sq170"])
def test_device_path_reproduces_golden_pictures(name):
    cases = list(_golden_cases([name]))
    frames = np.stack([image[None] for image, row, *_ in cases if row is not None])
    augment = np.stack([row for _, row, *_ in cases if row is not None]).astype(np.float32)
    results = [*_train(frames, augment, 224), _evaluate(frames[:1], 224)[0]]
    for (_, _, *golden), (result,) in zip(cases, results, strict=True):
        _assert_golden(result, *golden)


# Device against host.


@pytest.mark.parametrize(
    ("size", "image_size"), [(256, 224), (224, 224), (256, 128), (256, 96), (110, 96)]
)
def test_device_equals_host_in_every_pixel(size, image_size):
    frames, augment = _random_frames(size), _draws(image_size, 2, seed=size)
    trained = _train(frames, augment, image_size)
    expected = [
        [preprocess.host_train(frame, row, image_size) for frame in clip]
        for clip, row in zip(frames, augment, strict=True)
    ]
    np.testing.assert_array_equal(_grey_levels(trained), _grey_levels(expected))
    evaluated = _evaluate(frames, image_size)
    expected = [[preprocess.host_eval(frame, image_size) for frame in clip] for clip in frames]
    np.testing.assert_array_equal(_grey_levels(evaluated), _grey_levels(expected))
    np.testing.assert_allclose(evaluated, expected, rtol=0, atol=1e-6)


def test_colours_change_in_the_order_of_a_clip():
    frames, augment = _random_frames(110, shape=(6, 1)), _draws(96, 6)
    augment[:, 6] = range(6)
    in_order = jax.jit(functools.partial(preprocess.TRAINING["random"], image_size=96))
    trained = _grey_levels(in_order(frames, augment))
    expected = [
        preprocess.host_train(frame, row, 96) for (frame,), row in zip(frames, augment, strict=True)
    ]
    np.testing.assert_array_equal(trained[:, 0], _grey_levels(expected))
    fixed = _grey_levels(_train(frames, augment, 96))
    assert [bool((fixed[k] == trained[k]).all()) for k in range(6)] == [True] + [False] * 5


def test_the_centre_is_what_an_unmoved_training_crop_shows():
    frames = _random_frames(256)
    unmoved = np.tile(np.float32([6, 6, 0, 1, 1, 1, 0]), (len(frames), 1))
    evaluated = preprocess.evaluate_centre(jnp.asarray(frames), image_size=84)
    np.testing.assert_array_equal(evaluated, _train(frames, unmoved, 84))


@pytest.mark.parametrize("factor", [0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.3, 1.4, 0.8373, 1.3435])
def test_blend_equals_pil_for_every_pair_of_levels(factor):
    start, end = np.indices((256, 256), np.uint8)
    expected = Image.blend(Image.fromarray(start), Image.fromarray(end), factor)
    pair = (jnp.asarray(x, jnp.int32).reshape(1, 1, 256, 256, 1) for x in (start, end))
    pair = (jnp.repeat(x, 3, axis=-1) for x in pair)
    blended = jax.jit(preprocess._blend)(*pair, jnp.full((1, 1, 1, 1, 1), float(factor)))
    np.testing.assert_array_equal(blended[0, 0, :, :, 0], expected)


def test_halves_are_rounded_up_as_in_pil():
    rows = np.array([[0, 2, 2, 0], [0, 2, 2, 0], [2, 4, 4, 2], [2, 4, 4, 2]], np.uint8)
    frame = np.repeat(rows[..., None], 3, axis=-1)
    result = _grey_levels(_evaluate(frame[None, None], 2))[0, 0]
    expected = Image.fromarray(frame).resize((2, 2), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(result, expected)


def test_equal_sizes_leave_pixels_alone():
    frames = _random_frames(32)
    np.testing.assert_array_equal(_grey_levels(_evaluate(frames, 32)), frames)


# What a draw does.


def test_all_frames_of_a_clip_share_the_draw():
    frames = np.repeat(_random_frames(32, shape=(2, 1)), 3, axis=1)
    clips = np.asarray(_train(frames, _draws(32, 2), 32))
    np.testing.assert_array_equal(clips, np.repeat(clips[:, :1], 3, axis=1))


def test_offsets_are_x_then_y():
    frames = _random_frames(37, shape=(1, 1))
    result = _train(frames, [[3, 5, 0, 1, 1, 1, 0]], 32)
    np.testing.assert_array_equal(_grey_levels(result)[0, 0], frames[0, 0, 5:37, 3:35])


def test_flip_mirrors_left_and_right():
    frames = _random_frames(37, shape=(1, 1))
    plain, mirrored = (_train(frames, [[2, 1, flip, 1, 1, 1, 0]], 32) for flip in (0, 1))
    np.testing.assert_array_equal(mirrored, plain[..., ::-1, :])


def test_resized_keeps_the_ratio_of_the_release():
    assert [preprocess.resized(size) for size in (224, 128, 96)] == [256, 146, 110]


# Wrong input.


def test_to_record_size_resizes_squares():
    assert preprocess.to_record_size(_random_frames(300)[0, 0], 256).shape == (256, 256, 3)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: preprocess.to_record_size(image, 256),
        lambda image: preprocess.host_eval(image, 224),
    ],
)
def test_host_refuses_pictures_that_are_not_square(transform):
    with pytest.raises(errors.InputError, match=r"40x30 pixels .* crop the face"):
        transform(np.zeros((30, 40, 3), np.uint8))


def test_device_refuses_frames_that_are_not_square():
    with pytest.raises(errors.InputError, match="40x30 pixels"):
        preprocess._resize(jnp.zeros((1, 1, 30, 40, 3), jnp.uint8), 32)


@pytest.mark.parametrize(
    ("size", "strength", "expected"),
    [(224, 1.0, range(33)), (224, 0.0, range(16, 17)), (96, 0.15, range(6, 9))],
)
def test_crops_move_over_the_middle_of_the_margin(size, strength, expected):
    assert preprocess.crop_offsets(size, strength) == expected


def test_a_strength_above_1_is_refused():
    with pytest.raises(errors.InputError, match="augmentation is 1.5"):
        preprocess.crop_offsets(224, 1.5)
