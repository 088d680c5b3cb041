"""What contracts share."""

import pytest


@pytest.fixture
def one_thread():
    """Torch computes in one thread: the networks are tiny, and the machine is shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
