"""Files and dotted names that the documents speak of exist, and so do the pages that they link to."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = "modeltree|transforms|nas|compile|runtime"
FILE = re.compile(rf"`((?:{PACKAGES}|tests|benchmarks|docs)/[\w./-]+)`")
DOTTED = re.compile(rf"`((?:{PACKAGES})(?:\.\w+)+)`")
FORBIDDEN = {"tests/conftest.py", "tests/modeltree/__init__.py", "nas/TaskStream-v0"}
"""What CONTRIBUTING.md tells never to add, and what is an environment's id."""
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    named = {name.rstrip(".") for name in FILE.findall(page.read_text())}
    assert not [name for name in named - FORBIDDEN if "NAME" not in name and not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_dotted_name_can_be_imported(page):
    missing = [name for name in set(DOTTED.findall(page.read_text())) if not known(name)]
    assert not missing


def known(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute below one; a file such as `compile.json` is neither."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name and not ".".join(parts).startswith(error.name):
                pytest.skip(f"{name} needs {error.name}: pip install -e '.[dev]'")
            continue
        found = module
        for part in parts[end:]:
            fields = getattr(found, "__struct_fields__", ()) or getattr(found, "__dataclass_fields__", ())
            if part in fields or part in getattr(found, "__annotations__", {}):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_a_name_that_is_not_there_is_noticed():
    assert known("nas.finalise.finetune.forest_seen")
    assert not known("nas.finalise.finetune.forest_accuracy")
    assert not known("nas.finetune")
