"""The bytes of a manifest. A change here is a change of the format: raise MANIFEST_VERSION and docs/bundle.md with it.

python tests/golden/test_golden_bundle.py writes the file anew.
"""

from pathlib import Path

from modeltree.manifest import MANIFEST_VERSION, decode_manifest, encode_manifest

GOLDEN = Path(__file__).parent / f"bundle_v{MANIFEST_VERSION}.json"


def test_a_manifest_has_the_bytes_it_always_had():
    from bundles import manifest

    assert encode_manifest(manifest()) == GOLDEN.read_bytes()


def test_a_manifest_written_long_ago_is_read():
    from bundles import manifest

    assert decode_manifest(GOLDEN.read_bytes(), GOLDEN.name) == manifest()


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "nas"))
    from bundles import manifest

    GOLDEN.write_bytes(encode_manifest(manifest()))
