# SPDX-License-Identifier: Apache-2.0
"""TFDS builders: each turns one source of labelled frames into a prepared data set."""
