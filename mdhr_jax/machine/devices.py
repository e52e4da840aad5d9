# SPDX-License-Identifier: Apache-2.0
"""The devices that JAX uses; the CPU of a machine with a GPU only where that is asked for."""

import os
import pathlib
from collections.abc import Sequence

import jax

from mdhr_jax.errors import InputError

GPUS = pathlib.Path("/dev/nvidiactl")  # there is one where NVIDIA's driver is


def found() -> Sequence[jax.Device]:
    """All of them.

    Raises:
      InputError: JAX overlooks this machine's GPU.
    """
    asked = os.environ.get("JAX_PLATFORMS") == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in (
        "",
        "-1",
    )
    if jax.default_backend() == "cpu" and GPUS.exists() and not asked:
        raise InputError(
            "this machine has a GPU that JAX cannot use: pip install 'mdhr-jax[cuda]', or set "
            "JAX_PLATFORMS=cpu to take the CPU"
        )
    return jax.devices()
