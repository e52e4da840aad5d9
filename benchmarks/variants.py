# SPDX-License-Identifier: Apache-2.0
"""How the PyTorch twin is run beside ours: as released, tuned, and tuned but for one thing."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is switched on.

    Attributes:
      autocast: products and convolutions in bfloat16, if that is the precision asked for.
      channels_last: memory format of pictures, maps and convolutions.
      compiled: `torch.compile` in its default mode.
      fused: AdamW as one kernel, not PyTorch's default.
      on_device: pictures come as uint8 and are cropped, coloured and normalised on the device, F1
        is counted there. Otherwise they come as float32, transformed beforehand, from memory that
        is not pinned, two losses are read in every step, and F1 is counted in Python.
      free: cuDNN may choose the fastest convolutions, other float32 products may be TF32. Otherwise
        cuDNN is deterministic and only convolutions may be TF32, as in the release.
    """

    autocast: bool
    channels_last: bool
    compiled: bool
    fused: bool
    on_device: bool
    free: bool


RELEASED = Variant(*[False] * 6)
TUNED = Variant(*[True] * 6)
ABLATED = ("autocast", "channels_last", "compiled", "fused")
VARIANTS = {
    "released": RELEASED,
    "tuned": TUNED,
    **{f"tuned-without-{name}": dataclasses.replace(TUNED, **{name: False}) for name in ABLATED},
}
