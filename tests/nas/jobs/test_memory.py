"""Freed memory is kept where torch works, and given back where others do."""

import subprocess
import sys

import pytest

PROGRAM = """
import re
import torch
from nas.jobs.memory import give_back, keep_freed_memory


def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024


kept = keep_freed_memory()
before = resident_mb()
torch.ones(64 * 2**20)
after = resident_mb()
give_back()
print(kept, after - before, resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and glibc's mallopt")
def test_freed_memory_is_kept_until_it_is_given_back():
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "False":
        pytest.skip("the C library has no mallopt")
    kept_mb, left_mb = map(int, said[1:])
    assert kept_mb > 200
    assert left_mb < 64
