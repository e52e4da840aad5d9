# SPDX-License-Identifier: Apache-2.0
"""How fast a step is, beside what the device could do (`mdhr bench`)."""
