# SPDX-License-Identifier: Apache-2.0
"""Faces rendered from AU labels: a stand-in for recordings that may not be passed on."""
