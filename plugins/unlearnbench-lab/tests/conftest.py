"""Limits torch to one thread before it is imported, so that results do not depend on the machine."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
