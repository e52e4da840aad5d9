# SPDX-License-Identifier: Apache-2.0
"""One run: recipe, directory, inputs, programs, scoring, checkpoints, protocol."""
