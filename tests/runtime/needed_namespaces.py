"""Network namespaces, where this machine lets us make them."""

import os
import shutil

import pytest

from modeltree.errors import ConfigError
from runtime.link import NamespaceLink


def need_namespaces():
    """Skip the test that asks unless namespaces can be made."""
    if os.geteuid() != 0 or not shutil.which("tc"):
        pytest.skip("network namespaces need root and iproute2: apt-get install iproute2, run as root")
    try:
        with NamespaceLink():
            pass
    except ConfigError as error:
        pytest.skip(str(error))
