# SPDX-License-Identifier: Apache-2.0
"""What the program runs on: devices, processes, files, locks and progress."""
