# SPDX-License-Identifier: Apache-2.0
"""Configurations: `base` names every key, one short file per result."""
