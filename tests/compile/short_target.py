"""A target of this machine's kind whose vectors are as short as ARM's, so that code for them can run here."""

from compile.targets import Target

SHORT = Target(
    name="x86-64-v2", description="as short as ARM's vectors", triple="x86_64-unknown-linux-gnu", cpu="x86-64-v2",
    vector_bits=128, registers=16, threads=2,
)  # fmt: skip
