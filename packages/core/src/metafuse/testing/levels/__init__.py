"""The levels of the conformance kit, one module each: plain test functions that take a ``Kit``."""
