# SPDX-License-Identifier: Apache-2.0
"""The backbones that a model may have, by name.

A backbone is a module from frames (b, t, h, w, 3) to a token map (b, t, g, g, c) and four maps,
with `channels`, `features` and `image_multiple` as `resnet.ResNet` has them. A new one is one class
and one line: `BACKBONES["mine"] = MyBackbone`.
"""

import functools
from collections.abc import Callable
from typing import Any

from mdhr_jax.models import resnet, swin

_RESNET = functools.partial(resnet.ResNet, width=64)
_SWIN_S = functools.partial(
    swin.Swin, width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.3
)
_SWIN_B = functools.partial(_SWIN_S, width=128, heads=(4, 8, 16, 32), drop_path=0.5)
BACKBONES: dict[str, Callable[..., Any]] = {
    "resnet18": functools.partial(_RESNET, block=resnet.Basic, depths=(2, 2, 2, 2)),
    "resnet50": functools.partial(_RESNET, depths=(3, 4, 6, 3)),
    "resnet101": functools.partial(_RESNET, depths=(3, 4, 23, 3)),
    "resnet_narrow": functools.partial(resnet.ResNet, depths=(1, 1, 1, 1), width=8),
    "swin_t": functools.partial(_SWIN_S, depths=(2, 2, 6, 2), drop_path=0.2),
    "swin_s": _SWIN_S,
    "swin_b": _SWIN_B,
    "swin_b_outputs": functools.partial(_SWIN_B, stage_outputs=True),
}


def check_size(backbone: Any, height: int, width: int) -> None:
    """Refuses images that are not square or of no multiple of the backbone's `image_multiple`.

    Raises:
      ValueError: such an image size.
    """
    multiple = backbone.image_multiple
    if height != width or height % multiple:
        raise ValueError(
            f"this backbone takes square images of a multiple of {multiple} pixels, "
            f"not {height}x{width}"
        )
