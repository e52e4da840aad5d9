# SPDX-License-Identifier: Apache-2.0
"""A trained model at work on material without labels."""
