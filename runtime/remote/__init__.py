"""The cloud as a session sees it: calls, their failures, the link's readings."""
