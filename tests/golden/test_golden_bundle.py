"""The bytes of a manifest. A change here is a change of the format: raise MANIFEST_VERSION and docs/bundle.md with it.

python tests/golden/test_golden_bundle.py writes the file anew.
"""

from pathlib import Path

from modeltree.manifest import MANIFEST_VERSION, decode_manifest, encode_manifest
from modeltree.preprocessing import PictureRule

GOLDEN = Path(__file__).parent / f"bundle_v{MANIFEST_VERSION}.json"


def test_a_manifest_has_the_bytes_it_always_had():
    from bundles import manifest

    assert encode_manifest(manifest()) == GOLDEN.read_bytes()


def test_a_manifest_written_long_ago_is_read():
    from bundles import manifest

    assert decode_manifest(GOLDEN.read_bytes(), GOLDEN.name) == manifest()


def test_a_manifest_of_before_there_was_pre_processing_in_it_has_what_was_done_then():
    from bundles import manifest

    before = GOLDEN.with_name("bundle_v1_without_picture.json")
    assert decode_manifest(before.read_bytes(), before.name) == manifest()
    assert manifest().tree.picture == PictureRule(channels="RGB", resize="shorter-side", crop=1.0, filter="bicubic")


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "nas"))
    from bundles import manifest

    GOLDEN.write_bytes(encode_manifest(manifest()))
