"""The manifest of a bundle: what `nas compile` made of a model tree, and what every file of it must be. No torch.

`docs/bundle.md` is the specification. What a manifest may say is checked here, before anyone touches a file it names.
"""

from modeltree.manifest.document import (
    MANIFEST_FORMAT,
    MANIFEST_VERSION,
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_manifest,
)
from modeltree.manifest.entries import (
    BlockEntry,
    FileEntry,
    LibraryEntry,
    PathEntry,
    Plain,
    Provenance,
    Role,
    TargetEntry,
    VariantAccuracy,
)
from modeltree.manifest.places import (
    MANIFEST_NAME,
    SHIM_NAME,
    TVM_NAME,
    library_file,
    onnx_file,
    runtime_file,
)
from modeltree.manifest.tree_parts import number_formats_of, paths_of, roles_of

__all__ = [
    "MANIFEST_FORMAT",
    "MANIFEST_NAME",
    "MANIFEST_VERSION",
    "MAX_MANIFEST_BYTES",
    "SHIM_NAME",
    "TVM_NAME",
    "BlockEntry",
    "FileEntry",
    "LibraryEntry",
    "Manifest",
    "PathEntry",
    "Plain",
    "Provenance",
    "Role",
    "TargetEntry",
    "VariantAccuracy",
    "decode_manifest",
    "encode_manifest",
    "is_manifest",
    "library_file",
    "number_formats_of",
    "onnx_file",
    "paths_of",
    "roles_of",
    "runtime_file",
]
