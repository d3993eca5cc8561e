"""The worker of the positive control, with the hidden work from LLAMA_TEST_HIDDEN_WORK."""

import os
import sys

from ggufbench.worker import positive_control

sys.exit(positive_control.main(float(os.environ["LLAMA_TEST_HIDDEN_WORK"])))
