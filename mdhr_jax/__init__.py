# SPDX-License-Identifier: Apache-2.0
"""MDHR (CVPR 2024) in JAX: facial action units from video, checkable against the release."""
