# SPDX-License-Identifier: Apache-2.0
"""MTCNN: three small nets in a row that find faces and five points in each (Zhang et al. 2016)."""
