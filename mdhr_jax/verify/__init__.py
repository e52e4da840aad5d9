# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the official release -> a stage-by-stage verdict (`mdhr verify`)."""
