# SPDX-License-Identifier: Apache-2.0
"""The quickstart's narrow model for the paper's tables on rendered faces: minutes a run.

    bash launch/tables.sh

As in `twin`, all runs start from a backbone that has seen other faces. Clips of eight frames and
a window of two, so that a batch holds sixteen people: neighbouring frames look alike, and with
eight people a batch the plain backbone did not come ten points over always-positive in this time.

Expected: docs/results/tables.
"""

from ml_collections import ConfigDict

from mdhr_jax.configs import twin


def get_config() -> ConfigDict:
    """One run of a table; `model.init_from` and the number of steps are left to the command."""
    config = twin.get_config()
    config.clip_length = 8
    config.batch_size = 16
    config.eval_batch_size = 16
    config.model.dynamics.k = 2
    config.learning_rate = 6e-3
    return config
