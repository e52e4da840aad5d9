# SPDX-License-Identifier: Apache-2.0
"""What a run looks like to a reader: tables and plots."""
