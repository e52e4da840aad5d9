# SPDX-License-Identifier: Apache-2.0
import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from mdhr_jax import errors
from mdhr_jax.faces import limits, picture_files


def refusal(file):
    """The one line with which a picture is refused."""
    with pytest.raises(errors.InputError) as refused:
        picture_files.read(file)
    message = str(refused.value)
    assert "\n" not in message
    return message


UPRIGHT = np.array([[0, 40, 80], [120, 160, 200]], np.uint8)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, UPRIGHT),
        (2, UPRIGHT[:, ::-1]),
        (3, UPRIGHT[::-1, ::-1]),
        (4, UPRIGHT[::-1]),
        (5, UPRIGHT.T),
        (6, np.rot90(UPRIGHT)),  # the stored left edge is the upper one
        (7, UPRIGHT[::-1, ::-1].T),
        (8, np.rot90(UPRIGHT, -1)),
    ],
)
def test_exif_rotation_is_applied(tmp_path, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(stored, np.ones((16, 16), np.uint8))
    Image.fromarray(blocks).convert("RGB").save(tmp_path / "1.jpg", exif=exif, quality=95)
    shown = picture_files.read(tmp_path / "1.jpg")[8::16, 8::16]
    np.testing.assert_allclose(shown[..., 0], UPRIGHT, atol=4)


def test_what_is_converted_is_said_once(tmp_path, capsys):
    picture_files._say.cache_clear()
    for name in ("1.png", "2.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
        picture_files.read(tmp_path / name)
    assert capsys.readouterr().err == "pictures of mode L become 8-bit RGB\n"


@pytest.mark.parametrize(
    ("name", "mode", "value"),
    [("1.png", "L", 200), ("1.png", "RGBA", (200, 200, 200, 9)), ("1.png", "I;16", 200 * 256),
     ("1.png", "LA", (200, 9)), ("1.png", "P", 5), ("1.png", "1", 1), ("1.jpg", "L", 200),
     ("1.jpg", "CMYK", (55, 55, 55, 0))],
)  # fmt: skip
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, name, mode, value):
    image = Image.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette([0] * 15 + [200] * 3)
    image.save(tmp_path / name)
    picture = picture_files.read(tmp_path / name)
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
    np.testing.assert_allclose(picture, 255 if mode == "1" else 200, atol=1)


def test_16_bit_colours_become_8_bit(tmp_path):
    levels = np.array([[0, 200 * 256 + 255, 65535]], ">u2")
    rows = b"".join(b"\0" + row.repeat(3).tobytes() for row in levels)
    chunks = {
        b"IHDR": (3).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0]),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    data = b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks.items()
    )
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    picture = picture_files.read(tmp_path / "1.png")
    assert picture.tolist() == [[[0] * 3, [200] * 3, [255] * 3]]


@pytest.mark.parametrize("name", ["2.webp", "2.png"])
def test_a_moving_picture_is_none(tmp_path, name):
    pictures = [Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 99)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    assert "it holds 2 pictures" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["2.jpg", "2.png", "2.webp", "2.bmp"])
def test_a_picture_that_was_cut_off_is_refused_by_name(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    assert f"{name}: does not decode as JPEG, PNG, WebP or BMP" in refusal(tmp_path / name)
    assert f"{len(data) // 2} bytes" in refusal(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("left_out", [slice(1 / 2, 1), slice(1 / 3, 2 / 3)])
def test_a_jpeg_with_a_hole_is_refused_rather_than_filled_with_grey(tmp_path, mode, left_out):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    start, stop = int(left_out.start * len(data)), int(left_out.stop * len(data))
    (tmp_path / "1.jpg").write_bytes(
        data[:start] + data[stop:].removesuffix(b"\xff\xd9") + b"\xff\xd9"
    )
    with pytest.raises(errors.InputError, match=r"1\.jpg: does not decode"):
        picture_files.read(tmp_path / "1.jpg")


def test_a_damaged_picture_of_a_stereo_camera_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    first, second = (Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in "12")
    first.save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=[second])
    assert picture_files.read(tmp_path / "1.jpg").shape == (64, 64, 3)
    data = bytearray((tmp_path / "1.jpg").read_bytes())
    data[1500:1700] = bytes(200)
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(errors.InputError, match="does not decode"):
        picture_files.read(tmp_path / "1.jpg")


def test_oddities_of_a_jpeg_s_header_are_no_damage(tmp_path):
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    version = data.index(b"JFIF\0") + 5
    (tmp_path / "1.jpg").write_bytes(data[:version] + b"\3\1" + data[version + 2 :])
    assert picture_files.read(tmp_path / "1.jpg").mean() == 9
    scan = data.index(b"\xff\xda")
    (tmp_path / "1.jpg").write_bytes(data[:scan] + b"\0\0" + data[scan:])
    assert picture_files.read(tmp_path / "1.jpg").mean() == 9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_the_largest_picture_takes_less_than_300_mb(tmp_path, name):
    side = int(limits.PIXELS**0.5)
    Image.new("RGB", (side, side), (9, 9, 9)).save(tmp_path / name)
    program = (
        "import pathlib, sys\n"
        "from mdhr_jax.faces import picture_files\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = lambda: int(status.read_text().partition('VmHWM:')[2].split()[0])\n"
        "before = peak()\n"
        "assert picture_files.read(pathlib.Path(sys.argv[1])).mean() == 9\n"
        "print((peak() - before) / 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, check=True
    )
    assert 100 < float(done.stdout) < 300


@pytest.mark.parametrize("kind", ["GIF", "TIFF", None])
def test_a_picture_of_another_format_is_refused_by_name(tmp_path, kind):
    data = io.BytesIO()
    if kind:
        Image.new("RGB", (8, 8)).save(data, kind)
    (tmp_path / "2.jpg").write_bytes(data.getvalue())
    assert "2.jpg: does not decode as JPEG, PNG, WebP or BMP" in refusal(tmp_path / "2.jpg")


@pytest.mark.parametrize("size", [(8001, 8000), (10000, 9000), (20000, 10000)])
def test_a_huge_picture_is_refused_by_its_header(tmp_path, size):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    header = b"IHDR" + b"".join(side.to_bytes(4, "big") for side in size) + data[24:29]
    checksum = zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "1.png").write_bytes(data[:12] + header + checksum + data[33:])
    message = refusal(tmp_path / "1.png")
    assert "1.png" in message and "pixels" in message


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(errors.InputError, match=r"1\.png: more than 64 MB"):
        picture_files.read(tmp_path / "1.png")


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.jpg", progressive=True)
    assert picture_files.read(tmp_path / "1.jpg").shape == (64, 64, 3)
    data = (tmp_path / "1.jpg").read_bytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "1.jpg").write_bytes(data[:-2] + 60 * last + data[-2:])
    assert "1.jpg: does not decode" in refusal(tmp_path / "1.jpg")
    assert "it has 70 scans" in refusal(tmp_path / "1.jpg")


def test_a_film_behind_a_jpeg_is_no_part_of_it(tmp_path):
    """As in the motion photos of telephones."""
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "1.jpg")
    film = np.random.default_rng(0).integers(0, 256, 4_000_000, np.uint8).tobytes()
    assert film.count(b"\xff\xda") > 32
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes() + film)
    assert picture_files.read(tmp_path / "1.jpg").mean() == 9
