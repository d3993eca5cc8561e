"""The worker of the positive control, whose hidden work LLAMA_TEST_HIDDEN_WORK says."""

import os
import sys

from ggufbench.worker import positive_control

sys.exit(positive_control.main(float(os.environ["LLAMA_TEST_HIDDEN_WORK"])))
