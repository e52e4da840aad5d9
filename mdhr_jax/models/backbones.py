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

_SWIN_B = functools.partial(
    swin.Swin, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.5
)
BACKBONES: dict[str, Callable[..., Any]] = {
    "resnet50": functools.partial(resnet.ResNet, depths=(3, 4, 6, 3), width=64),
    "resnet_narrow": functools.partial(resnet.ResNet, depths=(1, 1, 1, 1), width=8),
    "swin_b": _SWIN_B,
    "swin_b_outputs": functools.partial(_SWIN_B, stage_outputs=True),
}
