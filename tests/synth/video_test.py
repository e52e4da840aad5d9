# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
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
from mdhr_jax.synth import labels, people, video
name = {"seed": 0, "subject": "F001", "video": "T1"}
shown = labels.sample_labels(facs.BP4D, **name, num_frames=19)
inputs = [
    shown,
    labels.intensities(facs.BP4D, shown, **name),
    people.sample_identity(0, "F001"),
    video._surroundings(0, "F001", "T1", np.arange(19)),
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


def render(shown=SHOWN, **changes):
    return video.render_video(facs.BP4D, shown, **({"size": SIZE} | NAME | changes))


@pytest.fixture(scope="module")
def whole():
    return render()


def digest_elsewhere(program):
    """Digest of a program run by a process that salts its hashes differently."""
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    command = [sys.executable, "-c", program + "print(digest.hexdigest())"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_frames_are_bytes_of_the_asked_size(whole):
    assert whole.shape == (19, SIZE, SIZE, 3)
    assert whole.dtype == np.uint8
    assert whole.std() > 20


def test_a_frame_alone_equals_the_frame_within_the_video(whole):
    np.testing.assert_array_equal(render(frames=[17])[0], whole[17])
    np.testing.assert_array_equal(render(frames=[18, 3]), whole[[18, 3]])


def test_a_call_repeats_exactly(whole):
    np.testing.assert_array_equal(render(), whole)


def test_another_process_draws_the_same_inputs():
    here = {}
    exec(DIGEST_OF_INPUTS, here)
    assert digest_elsewhere(DIGEST_OF_INPUTS) == here["digest"].hexdigest()


@pytest.mark.slow
def test_another_process_renders_the_same_bytes(whole):
    assert digest_elsewhere(DIGEST_OF_FRAMES) == hashlib.sha256(whole.tobytes()).hexdigest()


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


def test_a_person_blinks_and_opens_the_eyes_again():
    pose, _ = video._surroundings(0, "F001", "T1", np.arange(300))
    assert pose.blink[0] == 0
    assert pose.blink.max() == 1
    assert 0.02 < (pose.blink > 0.5).mean() < 0.2


def test_the_head_keeps_its_place_in_the_crop():
    for subject in map(str, range(20)):
        pose, _ = video._surroundings(0, subject, "T1", np.arange(500))
        assert np.abs([pose.shift_x, pose.shift_y]).max() < 0.03
        assert np.abs(pose.roll).max() < 0.06
