"""`nas profile`"""


def profile() -> None:
    """later"""
