# SPDX-License-Identifier: Apache-2.0
"""The nets' weights, out of the files that the `mtcnn` wheel (MIT licence) carries.

The wheel is not imported, it would ask for TensorFlow. Its files are lists of arrays as joblib
writes them, compressed with LZ4: a pickle in which each array's description is followed by its
raw numbers. They are read as data by `pickles`, after a look at their checksums.
"""

import hashlib
import importlib.metadata
import io
import math
import pathlib
from typing import Any

import numpy as np

from mdhr_jax import pickles
from mdhr_jax.errors import InputError

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
_MAX_NUMBERS = 2**20  # of an array; the largest has 1152 x 256
_INSTALL = "pip install 'mdhr-jax[faces]'"


def load() -> dict[str, list[np.ndarray]]:
    """The arrays of each net ("pnet", "rnet", "onet") in the order of its layers.

    Raises:
      InputError: the `[faces]` extra is not installed, or a file is not the one known here.
    """
    return {net: read(_installed_file(net)) for net in SHA256}


def _installed_file(net: str) -> bytes:
    try:
        package = importlib.metadata.distribution("mtcnn")
        file = package.locate_file(f"mtcnn/assets/weights/{net}.lz4")
        data = pathlib.Path(str(file)).read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise InputError(
            f"the face detector's weights are not installed ({error}); run {_INSTALL}"
        ) from error
    if hashlib.sha256(data).hexdigest() != SHA256[net]:
        raise InputError(
            f"{net}.lz4 of mtcnn {package.version} is not the file known here (its SHA-256 "
            f"differs); run {_INSTALL}"
        )
    return data


def read(data: bytes) -> list[np.ndarray]:
    """The arrays in a list that joblib wrote with LZ4.

    Raises:
      InputError: there is something else in the file, or lz4 is not installed.
    """
    try:
        import lz4.frame
    except ImportError as error:
        raise InputError(f"the face detector's weights need lz4; run {_INSTALL}") from error
    try:
        stream = io.BytesIO(lz4.frame.decompress(data))
        arrays = pickles.load(
            stream,
            allowed={
                "joblib.numpy_pickle.NumpyArrayWrapper": lambda: _Array(stream),
                "numpy.ndarray": None,
                "numpy.dtype": _dtype,
            },
            persistent=_no_reference,
        )
        return [array.values for array in arrays]
    except (RuntimeError, AttributeError, TypeError, pickles.Refused) as error:
        raise InputError(f"the face detector's weights cannot be read: {error}") from error


class _Array(pickles.Stateful):
    """An array whose numbers follow its description in the stream."""

    def __init__(self, stream: io.BytesIO):
        self._stream = stream

    def set_state(self, state: Any) -> None:
        shape, dtype, order = state["shape"], state["dtype"], state["order"]
        if order != "C" or not isinstance(dtype, np.dtype):
            raise pickles.Refused(f"an array in the order {order!r} of {dtype!r}")
        count = math.prod(shape)
        if not all(type(side) is int and side > 0 for side in shape) or count > _MAX_NUMBERS:
            raise pickles.Refused(f"an array of the shape {shape!r}")
        (padding,) = self._stream.read(1)
        self._stream.read(padding)
        self.values = np.frombuffer(self._stream.read(count * dtype.itemsize), dtype)
        self.values = self.values.reshape(shape)


def _dtype(name: str, align: bool, copy: bool) -> np.dtype:
    del align, copy
    if name != "f4":
        raise pickles.Refused(f"numbers of the type {name!r}")
    return np.dtype("<f4")


def _no_reference(identifier: object) -> object:
    raise pickles.Refused(f"a reference to {identifier!r}")
