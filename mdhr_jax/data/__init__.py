# SPDX-License-Identifier: Apache-2.0
"""Labelled frames: official lists, prepared data sets (TFDS, ArrayRecord), clips and batches."""
