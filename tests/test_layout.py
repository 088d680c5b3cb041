"""What pytest and readers need of the repository's folders."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_two_test_files_or_helpers_share_a_name():
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_decisions_share_a_number():
    numbers = Counter(path.name[:3] for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [number for number, count in numbers.items() if count > 1] == []


def test_no_folder_of_tests_is_a_package():
    assert [*(ROOT / "tests").rglob("__init__.py"), *(ROOT / "tests").glob("conftest.py")] == []
