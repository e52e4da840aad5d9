# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mdhr_jax import errors, facs
from mdhr_jax.synth import labels, video

NAME = {"seed": 0, "subject": "F001", "video": "T1"}
SIZE = 64
SHOWN = labels.sample_labels(facs.BP4D, **NAME, num_frames=19)

DIGEST_OF_INPUTS = """
import hashlib, jax, numpy as np
from mdhr_jax import facs
from mdhr_jax.synth import labels, people, scene, video
name = {"seed": 0, "subject": "F001", "video": "T1"}
shown = labels.sample_labels(facs.BP4D, **name, num_frames=19)
inputs = [
    shown,
    labels.intensities(facs.BP4D, shown, **name),
    people.sample_identity(0, "F001"),
    scene.pose(0, "F001", "T1", np.arange(19)),
    scene.light(0, "F001", "T1", np.arange(19)),
    scene.camera(0, "F001", "T1", 64),
]
digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(inputs)))
"""
DIGEST_OF_FRAMES = """
import hashlib
from mdhr_jax import facs
from mdhr_jax.synth import labels, video
name = {"seed": 0, "subject": "F001", "video": "T1"}
shown = labels.sample_labels(facs.BP4D, **name, num_frames=19)
digest = hashlib.sha256(video.render_video(facs.BP4D, shown, **name, size=64).tobytes())
"""
RENDER_TO_FILE = """
import numpy as np
from mdhr_jax import facs
from mdhr_jax.synth import labels, video
frames = []
for subject in ("F001", "M001", "M002"):
    name = {"seed": 0, "subject": subject, "video": "T1"}
    shown = labels.sample_labels(facs.BP4D, **name, num_frames=400)
    frames.append(video.render_video(facs.BP4D, shown, **name, size=128, frames=range(0, 400, 8)))
np.save("FILE", frames)
"""


def render(shown=SHOWN, **changes):
    return video.render_video(facs.BP4D, shown, **({"size": SIZE} | NAME | changes))


@pytest.fixture(scope="module")
def whole():
    return render()


def run_elsewhere(program, environment):
    """What a program prints, in a process that salts its hashes differently."""
    environment = os.environ | {"PYTHONHASHSEED": "123"} | environment
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def digest_elsewhere(program, environment=None):
    return run_elsewhere(program + "print(digest.hexdigest())", environment or {})


def render_elsewhere(folder, environment):
    """Talking and acting people, at a size at which details survive."""
    file = folder / "frames.npy"
    run_elsewhere(RENDER_TO_FILE.replace("FILE", str(file)), environment)
    return np.load(file)


def test_frames_are_bytes_of_the_asked_size(whole):
    assert whole.shape == (19, SIZE, SIZE, 3)
    assert whole.dtype == np.uint8
    assert whole.std() > 20


def test_a_frame_alone_equals_the_frame_within_the_video(whole):
    np.testing.assert_array_equal(render(frames=[17])[0], whole[17])
    np.testing.assert_array_equal(render(frames=[18, 3]), whole[[18, 3]])


def test_no_frame_asked_for_gives_none(whole):
    assert render(frames=[]).shape == (0, *whole.shape[1:])


def test_a_call_repeats_exactly(whole):
    np.testing.assert_array_equal(render(), whole)


@pytest.mark.slow
def test_another_process_draws_the_same_inputs():
    here = {}
    exec(DIGEST_OF_INPUTS, here)
    assert digest_elsewhere(DIGEST_OF_INPUTS) == here["digest"].hexdigest()


@pytest.mark.long
def test_another_process_renders_the_same_bytes():
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    assert digest_elsewhere(DIGEST_OF_FRAMES) == digest_elsewhere(DIGEST_OF_FRAMES, eight)


@pytest.mark.long
def test_other_roundings_change_a_pixel_by_one_grey_level(tmp_path):
    """A program compiled without optimisation stands in for another kind of processor."""
    plain = render_elsewhere(tmp_path, {"JAX_PLATFORMS": "cpu"})
    other = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    other = render_elsewhere(tmp_path, other)
    assert (plain != other).any()
    assert np.abs(plain.astype(int) - other).max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="no GPU here")
def test_a_gpu_renders_the_same_within_one_grey_level(tmp_path):
    """Before compression: the camera's JPEG belongs to the records."""
    cpu = render_elsewhere(tmp_path, {"JAX_PLATFORMS": "cpu"})
    gpu = render_elsewhere(tmp_path, {"JAX_PLATFORMS": "cuda"})
    assert np.abs(cpu.astype(int) - gpu).max() <= 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"subject": "M001"}, {"video": "T2"}])
def test_frames_depend_on_every_part_of_the_name(change, whole):
    assert np.abs(render(frames=[0], **change)[0].astype(int) - whole[0]).mean() > 2


def test_frames_depend_on_labels_only_through_intensities(whole, monkeypatch):
    intensities = labels.intensities(facs.BP4D, SHOWN, **NAME)
    from_intensities = video.render_intensities(intensities, **NAME, size=SIZE)
    np.testing.assert_array_equal(from_intensities, whole)
    monkeypatch.setattr(labels, "intensities", lambda *args, **kwargs: intensities)
    np.testing.assert_array_equal(render(1 - SHOWN), whole)


def test_other_labels_give_other_frames(whole):
    assert (render(1 - SHOWN) != whole).any()


def test_a_frame_outside_the_labels_is_refused():
    with pytest.raises(errors.InputError, match="'F001', video 'T1': there is no frame 19"):
        render(frames=[19])


def test_fast_motion_is_blurred_and_rest_is_not(whole):
    """The same frame amid a fast and amid no opening of the mouth."""
    still = np.zeros((3, 15))
    still[:, -1] = 0.5
    opening = still.copy()
    opening[:, -1] = 0, 0.5, 1
    name = NAME | {"video": "T3"}
    shown = [
        video.render_intensities(values, **name, size=SIZE, frames=[1])[0].astype(int)
        for values in (still, opening)
    ]
    change = np.abs(shown[0] - shown[1]).max(axis=-1)
    assert change[SIZE // 2 :].max() > 4 and change[: SIZE // 4].max() == 0
