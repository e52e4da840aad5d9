# SPDX-License-Identifier: Apache-2.0
"""Official names and checkpoints, in and out."""
