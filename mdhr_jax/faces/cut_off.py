# SPDX-License-Identifier: Apache-2.0
"""Whether a film file ends before its container says, as half a download does.

ffmpeg reads what there is and ends quietly, unless the cut lies within a packet that it can hand
out. Most containers are a row of elements that say how long they are.
"""

import mmap
import pathlib

_HEAD = 282  # bytes that say how long an element is, at most
_PIECES = {  # bytes of the equal pieces that a film is written in, by its container
    "mpegts": (188, 192, 204),  # plain, with time codes (AVCHD), with checksums (DVB)
    "dv": (120_000, 144_000),  # a frame of NTSC, of PAL
}
_ENDS = {"gif": b"\0;", "mjpeg": b"\xff\xd9"}
_PADDING = 64  # bytes of nothing that may follow, at most


def is_cut_off(file: pathlib.Path, container: str) -> bool:
    """Whether bytes are missing at the end of a film; False where nothing tells.

    Args:
      file: the film.
      container: ffmpeg's name of the format.
    """
    size = file.stat().st_size
    if container in _PIECES:
        return all(size % piece for piece in _PIECES[container])
    if container in _ENDS:
        with file.open("rb") as data:
            data.seek(max(size - _PADDING, 0))
            return not data.read().rstrip(b"\0").endswith(_ENDS[container])
    if container == "yuv4mpegpipe":
        return _lacks_a_part(file)
    length = _LENGTHS.get(container)
    place = 0
    with file.open("rb") as data:
        while length and place < size:
            data.seek(place)
            step = length(data.read(_HEAD).ljust(_HEAD, b"\0"))
            if step is None:
                return False
            place += step
    return place > size


def _lacks_a_part(file: pathlib.Path) -> bool:
    """Whether the last picture of Y4M is smaller than the first; they follow a line."""
    with file.open("rb") as data, mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as film:
        first = film.find(b"FRAME")
        piece = film.find(b"FRAME", first + 1) - first
        return piece > 0 and (len(film) - first) % piece > 0


def _element(head: bytes) -> int | None:
    """Bytes to the next element of Matroska; to the first in it, where its size is not known."""
    name = 9 - head[0].bit_length()  # bytes of a number, as its first byte says
    length = 9 - head[name % 9].bit_length()
    if 9 in (name, length):
        return None
    content = int.from_bytes(head[name : name + length]) & 2 ** (7 * length) - 1
    return name + length + (content if content < 2 ** (7 * length) - 1 else 0)


def _box(head: bytes) -> int | None:
    """Bytes of a box of MP4 or QuickTime; some cameras write other things behind the last."""
    length = int.from_bytes(head[:4])
    if length == 1:
        length = int.from_bytes(head[8:16])
    return length if length >= 8 and head[4:8].isalpha() else None


def _riff(head: bytes) -> int | None:
    """Bytes of a RIFF, of which a long AVI has several."""
    length = int.from_bytes(head[4:8], "little")
    stated = head.startswith(b"RIFF") and 0 < length < 2**32 - 1  # when the film was finished
    return 8 + length if stated else None


def _object(head: bytes) -> int | None:
    """Bytes of an object of ASF (WMV)."""
    length = int.from_bytes(head[16:24], "little")
    return length if length >= 24 else None


def _tag(head: bytes) -> int | None:
    """Bytes of a tag of FLV, or of the header."""
    if head.startswith(b"FLV"):
        return int.from_bytes(head[5:9]) + 4
    return 11 + int.from_bytes(head[1:4]) + 4 if head[0] in (8, 9, 18) else None


def _page(head: bytes) -> int | None:
    """Bytes of a page of Ogg."""
    parts = head[26]
    return 27 + parts + sum(head[27 : 27 + parts]) if head.startswith(b"OggS") else None


def _triplet(head: bytes) -> int | None:
    """Bytes of a key, a length and a value of MXF."""
    more = head[16] & 127 if head[16] > 127 else 0  # bytes that hold the length
    length = int.from_bytes(head[17 : 17 + more]) if more else head[16]
    return 17 + more + length if head.startswith(b"\x06\x0e\x2b\x34") else None


_LENGTHS = {
    "matroska,webm": _element,
    "mov,mp4,m4a,3gp,3g2,mj2": _box,
    "avi": _riff,
    "asf": _object,
    "flv": _tag,
    "ogg": _page,
    "mxf": _triplet,
}
