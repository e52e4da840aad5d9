# SPDX-License-Identifier: Apache-2.0
"""Questions to many runs: ablations, comparisons, folds, figures."""
