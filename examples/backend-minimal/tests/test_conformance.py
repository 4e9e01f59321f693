from metafuse.testing.suite import *  # noqa: F403

BACKEND = "minimal"
