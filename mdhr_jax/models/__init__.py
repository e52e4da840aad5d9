# SPDX-License-Identifier: Apache-2.0
"""The model: the paper's figure as modules. Sees neither data, config, mesh nor checkpoints."""
