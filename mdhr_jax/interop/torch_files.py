# SPDX-License-Identifier: Apache-2.0
"""Torch's files (`.pth`, `.pt`) read and written without torch, and without executing anything.

Torch writes a zip archive: a pickle of the structure (`torch_pickles`) and one uncompressed member
per storage. Before version 1.6 it wrote a row of pickles followed by the storages. What a
checkpoint holds beside its weights is passed over.
"""

import contextlib
import io
import itertools
import pathlib
import reprlib
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mdhr_jax.errors import InputError
from mdhr_jax.interop import torch_pickles
from mdhr_jax.interop.torch_pickles import Storage, Tensor
from mdhr_jax.machine import files
from mdhr_jax.pickles import Global, Refused, Unknown

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"  # what an archive begins with
# Where checkpoints keep their weights: MDHR's and Lightning's, Swin's, those of other programs.
_PLACES = ("state_dict", "model", "model_state_dict", "net", "module", "weights")
_MAX_PICKLE = 2**25  # bytes; that of a checkpoint with its optimizer's state is below 2**20


class _CutOff(ValueError):
    """A file that ends before what it holds does."""


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a saved state_dict.

    A state_dict saved alone, or as an entry of a checkpoint: one of `_PLACES`, or the only one.
    Other weights, and names that are passed over, are said in a line.

    Raises:
      InputError: no torch file, one that is cut off, or no state_dict of plain tensors in it; what
        was refused is named.
    """
    path = pathlib.Path(path)
    passed_over: set[str] = set()
    try:
        with files.reading(path), path.open("rb") as stream:
            is_zip = stream.read(len(_ZIP)) == _ZIP
            contents = (_read_zip if is_zip else _read_legacy)(stream, passed_over)
            place, tensors = _find_state_dict(contents)
            arrays = _arrays(tensors)
    except _CutOff as error:
        raise InputError(f"{path}: {error}; copy or download it again") from error
    except Refused as error:
        raise InputError(
            f"{path}: refused for {error}; give a file with tensors alone, as "
            "torch.save(model.state_dict(), FILE) writes it"
        ) from error
    _say_what_is_left(path, contents, place, passed_over)
    return arrays


def _find_state_dict(contents: Any) -> tuple[str | None, dict[str, Tensor]]:
    """The named tensors of a file, and the entry that they are; None where they are the file."""
    if _is_state_dict(contents):
        return None, contents
    entries = contents if type(contents) is dict else {}
    state_dicts = [place for place, entry in entries.items() if _is_state_dict(entry)]
    first = [place for place in _PLACES if place in state_dicts] or state_dicts
    if first and (len(state_dicts) == 1 or first[0] in _PLACES):
        return first[0], entries[first[0]]
    if state_dicts:
        raise Refused(f"holding several state_dicts, {reprlib.repr(state_dicts)}")
    raise Refused(_other_contents(contents))


def _other_contents(contents: object) -> str:
    """What a file without a state_dict holds."""
    entries = contents if type(contents) is dict else {}
    places = [*(entries[place] for place in _PLACES if place in entries), contents]
    for place in places:
        if type(place) in (Global, Unknown):
            return f"a whole model, the name {place.name}"
    for place in places:
        values = place if type(place) is dict else {}
        for name, value in values.items():
            if type(value) in (Global, Unknown):
                return f"the name {value.name}"
            if type(value) is not Tensor and Tensor in map(type, values.values()):
                return f"{reprlib.repr(name)} among tensors, which is none"
    return f"holding no state_dict (names to tensors, alone or as {', '.join(_PLACES)})"


def _say_what_is_left(
    path: pathlib.Path, contents: dict, place: str | None, passed_over: set[str]
) -> None:
    others = [name for name, entry in contents.items() if _is_state_dict(entry) and name != place]
    if others:
        print(f"{path}: takes {place!r}, not {reprlib.repr(others)}", file=sys.stderr)
    if passed_over:
        names = ", ".join(sorted(passed_over)[:3]) + (", ..." if len(passed_over) > 3 else "")
        print(f"{path}: takes the tensors alone; left out and not run: {names}", file=sys.stderr)


def _is_state_dict(value: object) -> bool:
    return type(value) is dict and bool(value) and all(map(_is_named_tensor, value.items()))


def _is_named_tensor(item: tuple[object, object]) -> bool:
    name, tensor = item
    return type(name) is str and name.isprintable() and len(name) < 1000 and type(tensor) is Tensor


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The values of all; each storage is read once, and no number of it belongs to two tensors."""
    names = sorted(tensors, key=lambda name: (tensors[name].storage.key, tensors[name].offset))
    arrays: dict[str, np.ndarray] = {}
    for _, alike in itertools.groupby(names, key=lambda name: tensors[name].storage.key):
        group = list(alike)
        for name, following in itertools.pairwise(group):
            if tensors[following].offset < tensors[name].stop:
                raise Refused(f"tensors that overlap, {name} and {following}")
        data = tensors[group[0]].storage.read()
        arrays |= {name: tensors[name].array(data) for name in group}
    return {name: arrays[name] for name in tensors}


def _read_zip(stream: io.BufferedIOBase, passed_over: set[str]) -> Any:
    """The contents of an archive with one root folder, `archive/data.pkl` and `archive/data/0`."""
    if not zipfile.is_zipfile(stream):
        raise _CutOff(_cut_off(stream))
    with _reading_archive():
        archive = zipfile.ZipFile(stream)
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise Refused("two members of one name")
    roots = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not roots:
        raise Refused(f"being an archive of other files, {reprlib.repr(list(members))}")
    if len(roots) > 1:
        raise Refused(f"having {len(roots)} members */data.pkl instead of one")
    root = roots[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise Refused("being a TorchScript program")
    order = f"{root}byteorder"
    whole = stream.seek(0, io.SEEK_END)
    if order in members and _member(archive, members[order], 16) != b"little":
        raise Refused("a byte order other than little-endian")

    def storage(key: str, dtype: np.dtype, numel: int, view: object) -> Storage:
        name = f"{root}data/{key}"
        info = members.get(name)
        new = Storage(key, dtype, numel, lambda: _member(archive, members[name], whole))
        if info is None or view is not None:
            raise Refused(f"{new}, which is not in the archive")
        if info.file_size != new.size:
            raise Refused(f"{new} of {info.file_size} bytes, said to hold {numel} x {dtype}")
        return new

    pickle = _member(archive, members[roots[0]], _MAX_PICKLE)
    return torch_pickles.load(io.BytesIO(pickle), storage, passed_over)


def _cut_off(stream: io.BufferedIOBase) -> str:
    """How much is there of an archive whose end is missing, and how much its pickle asks for."""
    claimed: dict[str, Storage] = {}

    def storage(key: str, dtype: np.dtype, numel: int, view: object) -> Storage:
        claimed[key] = Storage(key, dtype, numel, bytes)
        return claimed[key]

    there = stream.seek(0, io.SEEK_END)
    stream.seek(26)  # of the first member's header: lengths of what lies before the pickle
    start = 30 + sum(struct.unpack("<HH", stream.read(4).ljust(4, b"\0")))
    stream.seek(start)
    pickle = io.BytesIO(stream.read(_MAX_PICKLE))
    with contextlib.suppress(Refused):  # it may be cut off itself
        torch_pickles.load(pickle, storage, set())
    whole = start + pickle.tell() + sum(each.size for each in claimed.values())
    return f"cut off after {there} of {max(whole, there + 1)} bytes or more"


@contextlib.contextmanager
def _reading_archive() -> Iterator[None]:
    """`zipfile` documents no set of exceptions for broken archives; these are what it raises."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error) as error:
        raise Refused(f"a broken archive ({error!s:.200})") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """A member's bytes, which torch stores as they are."""
    name = reprlib.repr(info.filename)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise Refused(f"a compressed member, {name}")
    if info.file_size > limit:
        raise Refused(f"{info.file_size} bytes of {name}, at most {limit} are expected")
    with _reading_archive():
        return archive.read(info)


def _read_legacy(stream: io.BufferedIOBase, passed_over: set[str]) -> Any:
    """Pickles of magic number, protocol, machine, contents and storage keys; then the storages."""
    stream.seek(0)
    stream = io.BytesIO(stream.read())  # reads no more than there is, whatever a length claims
    if torch_pickles.load(stream, _no_storage) != _LEGACY_MAGIC:
        raise Refused("being no torch file")
    if torch_pickles.load(stream, _no_storage) != _LEGACY_PROTOCOL:
        raise Refused("another protocol of torch's old format")
    machine = torch_pickles.load(stream, _no_storage)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise Refused("a byte order other than little-endian")
    places: dict[str, int] = {}
    claimed: dict[str, Storage] = {}

    def storage(key: str, dtype: np.dtype, numel: int, view: object) -> Storage:
        new = Storage(key, dtype, numel, lambda: _at(stream, places[key], new.size))
        if view is not None:
            raise Refused(f"{new}, a view of another one")
        claimed[key] = new
        return new

    contents = torch_pickles.load(stream, storage, passed_over)
    keys = torch_pickles.load(stream, _no_storage)
    listed = type(keys) is list and all(type(key) is str for key in keys)
    if not listed or sorted(keys) != sorted(claimed):
        raise Refused("storages that are not those of its tensors")
    there = len(stream.getbuffer())
    whole = stream.tell() + sum(8 + claimed[key].size for key in keys)
    if there < whole:
        raise _CutOff(f"cut off after {there} of {whole} bytes")
    for key in keys:
        places[key] = _legacy_place(stream, claimed[key])
    return contents


def _legacy_place(stream: io.BufferedIOBase, storage: Storage) -> int:
    """Where a storage's numbers start; leaves the stream behind them."""
    if int.from_bytes(stream.read(8), "little") != storage.numel:
        raise Refused(f"{storage}, said to hold {storage.numel} x {storage.dtype}, not there")
    start = stream.tell()
    stream.seek(start + storage.size)
    return start


def _at(stream: io.BufferedIOBase, start: int, size: int) -> bytes:
    stream.seek(start)
    return stream.read(size)


def _no_storage(key: str, *_: object) -> Storage:
    raise Refused(f"storage {reprlib.repr(key)} outside the contents")


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes contiguous arrays as `{"epoch": 0, "state_dict": ...}`, as `torch.save` does.

    The epoch is one of the release's entries; our runs count steps, so it says nothing.
    """
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", torch_pickles.dump(arrays))
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
