# SPDX-License-Identifier: Apache-2.0
"""From videos and pictures to square pictures of a face."""
