# SPDX-License-Identifier: Apache-2.0
"""Arithmetic without a model: steps, losses, metrics, optimizers, preprocessing."""
