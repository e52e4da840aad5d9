# SPDX-License-Identifier: Apache-2.0
"""The golden configurations of a directory: what the official code makes of `golden` inputs."""

import dataclasses
import functools
import json
import pathlib
import zipfile

import numpy as np

from mdhr_jax import facs
from mdhr_jax.errors import InputError
from mdhr_jax.verify import golden

# Names of the metadata of configurations: MDHR's and the GraphAU family's.
NAMES = ("*_b*t*k*.json", "*_stage[12]*.json")
LAYOUTS = facs.LAYOUTS | {"hybrid": facs.OPENGRAPHAU}  # by the names of their data sets


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration of a release: its metadata and its arrays."""

    name: str
    facts: dict
    arrays: dict[str, np.ndarray]

    @property
    def layout(self) -> facs.AuLayout:
        """The AU layout that the configuration is about."""
        return LAYOUTS[self.facts["dataset"].lower()]

    @property
    def backbone(self) -> str:
        """The backbone's official name."""
        return self.facts["backbone"]

    @functools.cached_property
    def clips(self) -> np.ndarray:
        """The input, `(b, t, 224, 224, 3)`; of the GraphAU family single frames."""
        return golden.clips(self.facts["B"], self.facts.get("T", 1), self.facts["input_seed"])


def read(directory: pathlib.Path) -> list[Case]:
    """All configurations in a golden directory, ordered so that equal weights are neighbours."""
    found = []
    for file in sorted(file for name in NAMES for file in directory.glob(name)):
        try:
            facts = json.loads(file.read_text())
            with file.with_suffix(".npz").open("rb") as stream, np.load(stream) as arrays:
                found.append(Case(file.stem, facts, dict(arrays)))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{file}: not a golden configuration ({error})") from error
    return sorted(found, key=lambda c: (c.layout.name, c.backbone, c.facts["base_seed"]))
