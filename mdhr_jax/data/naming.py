# SPDX-License-Identifier: Apache-2.0
"""Names of people, videos and files: which of them splits, records and terminals can show."""

import re
from collections.abc import Sequence

from mdhr_jax.errors import InputError

_PERSON = re.compile("_*[A-Za-z0-9][A-Za-z0-9_]*")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_people(subjects: Sequence[str]) -> None:
    """Whether TFDS splits, and files on any system, can be called by these names.

    Raises:
      InputError: one cannot, or two differ in capital letters or leading zeros alone.
    """
    alike: dict[str, str] = {}
    for subject in subjects:
        if not is_person(subject):
            raise InputError(
                f"subject {subject[:99]!r}: use letters, digits and _ only, as in S001, at most 100"
            )
        if subject.lower() == "all":
            raise InputError(
                f"subject {subject!r}: means everybody in TFDS; name the person otherwise"
            )
        plain = re.sub("(?<![0-9])0+(?=[0-9])", "", subject.lower())
        other = alike.setdefault(plain, subject)
        if other != subject:
            raise InputError(
                f"subjects {other} and {subject}: differ in capital letters or leading zeros "
                "alone; if it is one person, write the name in one way, else name them otherwise"
            )


def is_person(name: str) -> bool:
    """Whether a TFDS split, and a file in any folder, can be called so."""
    return _PERSON.fullmatch(name) is not None and len(name) <= 100


def is_name(name: str) -> bool:
    """Whether records and terminals can show a name: without control characters, and Unicode."""
    return not _UNFIT.search(name)


def shown(text: str) -> str:
    """The same lines, with ? for what names must not hold."""
    return "\n".join(_UNFIT.sub("?", line) for line in text.split("\n"))
