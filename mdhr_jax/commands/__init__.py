# SPDX-License-Identifier: Apache-2.0
"""The commands of `mdhr`, by theme: flags in, one call out."""
