# SPDX-License-Identifier: Apache-2.0
"""The pickles in torch's files: a structure of names, in which a tensor is a view of a storage.

They are read without executing anything, and everything claimed is checked against what is there
before an array is made.
"""

import dataclasses
import io
import math
import reprlib
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from mdhr_jax import pickles
from mdhr_jax.pickles import Global, Refused, Unknown

_DTYPES = {
    "BFloat16": ml_dtypes.bfloat16,
    "Bool": np.bool_,
    "Byte": np.uint8,
    "Char": np.int8,
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "Int": np.int32,
    "Long": np.int64,
    "Short": np.int16,
}
_MAX_DIMENSIONS = 8
_MAX_NUMBERS = 2**40  # of a tensor, the empty ones' other axes and strides included


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers in the file. `read` gives its bytes; `key` is the file's name for it."""

    key: str
    dtype: np.dtype
    numel: int
    read: Callable[[], bytes] = dataclasses.field(compare=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"storage {reprlib.repr(self.key)}"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as the file describes it: a dense part of a storage, not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements

    @property
    def stop(self) -> int:
        """Where the next tensor of the storage may begin."""
        return self.offset + math.prod(self.shape)

    def array(self, data: bytes) -> np.ndarray:
        """The values, in an array of their own; `data` is what the storage reads."""
        dtype = self.storage.dtype
        strides = [stride * dtype.itemsize for stride in self.strides]
        start = self.offset * dtype.itemsize
        return np.array(np.ndarray(self.shape, dtype, data, start, strides), order="C")


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements fill a stretch without gaps, in any order of the axes."""
    expected = 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length != 1:
            if stride != expected and 0 not in shape:
                return False
            expected *= length
    return True


def _tensor(storage: object, offset: Any, shape: object, strides: object, *_: object) -> Tensor:
    """What `torch._utils._rebuild_tensor_v2` makes; requires_grad and hooks are of no use here."""
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise Refused("a tensor without a storage, a shape or strides")
    numbers = (offset, *shape, *strides)
    whole = all(type(number) is int and 0 <= number < _MAX_NUMBERS for number in numbers)
    whole = whole and math.prod(filter(None, shape)) < _MAX_NUMBERS
    if not whole or len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise Refused(f"a tensor of shape {reprlib.repr(shape)}, strides {reprlib.repr(strides)}")
    if offset + math.prod(shape) > storage.numel:
        raise Refused(
            f"a tensor of shape {shape} from {offset} on in {storage}, which holds {storage.numel}"
        )
    if not _is_dense(shape, strides):
        raise Refused(f"a tensor with gaps or overlaps, shape {shape}, strides {strides}")
    return Tensor(storage, offset, shape, strides)


def _parameter(data: object, *_: object) -> Tensor:
    """What `torch._utils._rebuild_parameter` makes."""
    if type(data) is not Tensor:
        raise Refused("a parameter without a tensor")
    return data


def _ordered_dict(pairs: Any = ()) -> dict:
    """What `collections.OrderedDict` makes; Python 2 wrote the items as an argument."""
    if type(pairs) not in (list, tuple) or not all(
        type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) is str for pair in pairs
    ):
        raise Refused("an ordered dict of anything but pairs")
    if len(dict(pairs)) != len(pairs):
        raise Refused("two entries of one name")
    return dict(pairs)


_STORAGE_TYPES = {
    f"{module}.{name}Storage": np.dtype(dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in _DTYPES.items()
}
_ALLOWED: dict[str, Callable | None] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    **dict.fromkeys(_STORAGE_TYPES),
}


def load(
    stream: io.BytesIO,
    storage: Callable[..., Storage],
    passed_over: set[str] | None = None,
) -> Any:
    """One pickle in which persistent identifiers are storages.

    Args:
      stream: where it begins; it is left behind the pickle.
      storage: makes a storage of key, type, number of elements and view (or None).
      passed_over: to which names are added that were not resolved; None: these are refused.

    Raises:
      Refused: it is broken, or holds what is not allowed.
    """
    known: dict[str, Storage] = {}

    def persistent(identifier: object) -> Storage:
        match identifier:
            case ("storage", Unknown(name=name), *_):
                raise Refused(f"numbers of the type {name}")
            case ("storage", Global() as kind, str() as key, str(), int() as numel, *view):
                dtype = _STORAGE_TYPES.get(kind.name)
                if dtype is not None and type(numel) is int and numel >= 0 and len(view) < 2:
                    new = storage(key, dtype, numel, *(view or [None]))
                    if known.setdefault(key, new) != new:
                        raise Refused(f"{new}, described in two ways")
                    return new
        raise Refused(f"an identifier that describes no storage, {reprlib.repr(identifier)}")

    return pickles.load(stream, allowed=_ALLOWED, persistent=persistent, passed_over=passed_over)


def dump(arrays: Mapping[str, np.ndarray]) -> bytes:
    """`{"epoch": 0, "state_dict": arrays}` in protocol 2, storages numbered in order."""
    entries = b"".join(
        _text(name) + _pickled_tensor(str(key), array)
        for key, (name, array) in enumerate(arrays.items())
    )
    state_dict = _ORDERED_DICT + b"(" + entries + b"u"
    top = b"}(" + _text("epoch") + _number(0) + _text("state_dict") + state_dict + b"u"
    return b"\x80\x02" + top + b"."


def _pickled_tensor(key: str, array: np.ndarray) -> bytes:
    kind = next(name for name, dtype in _DTYPES.items() if array.dtype == dtype)
    storage = _text("storage") + _name("torch", f"{kind}Storage") + _text(key) + _text("cpu")
    strides = [stride // array.itemsize for stride in array.strides]
    return (
        _name("torch._utils", "_rebuild_tensor_v2")
        + b"("  # its arguments: storage, offset, shape, strides, requires_grad, hooks
        + _tuple(storage + _number(array.size))
        + b"Q"
        + _number(0)
        + _tuple(b"".join(map(_number, array.shape)))
        + _tuple(b"".join(map(_number, strides)))
        + b"\x89"
        + _ORDERED_DICT
        + b"tR"
    )


def _tuple(items: bytes) -> bytes:
    return b"(" + items + b"t"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
