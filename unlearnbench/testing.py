"""The conformance check of unlearners, for the tests of plugins."""

from unlearnbench.unlearners.contract import ConformanceError, check_unlearner

__all__ = ["ConformanceError", "check_unlearner"]
