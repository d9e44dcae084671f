"""Settings of every test: nothing reaches the network, and one commit has one result."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from hypothesis import settings

# No deadline, because a busy machine is not a wrong program; the same examples every time, so that a failure
# stays one.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
