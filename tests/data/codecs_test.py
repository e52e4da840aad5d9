# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors
from mdhr_jax.data import codecs


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_pictures_keep_the_bits_of_the_plain_decoder(source, image_format):
    codec = codecs.CODECS[image_format]
    noise = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    metadata = dataclasses.replace(source.metadata, image_format=image_format)
    images = [codec.encode(picture, 80) for picture in noise]
    found = dataclasses.replace(source, images=images, metadata=metadata)
    rows = np.arange(30)[::-1].reshape(2, 3, 5)
    pictures = found.pictures(rows)
    assert pictures.shape == (2, 3, 5, 16, 16, 3)
    for row, picture in zip(rows.ravel(), pictures.reshape(-1, 16, 16, 3), strict=True):
        np.testing.assert_array_equal(picture, codec.decode(images[row]))


def test_a_record_of_huge_dimensions_is_refused_by_its_header(source):
    data = io.BytesIO()
    Image.new("1", (16, 16)).save(data, "png")
    sides = (14000).to_bytes(4, "big") * 2
    header = b"IHDR" + sides + data.getvalue()[24:29]
    bomb = data.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big")
    metadata = dataclasses.replace(source.metadata, image_format="png")
    images = [bomb + data.getvalue()[33:]] * 30
    broken = dataclasses.replace(source, images=images, metadata=metadata)
    with pytest.raises(errors.InputError, match="record 8 .*does not decode as png"):
        broken.pictures(np.array([8]))
