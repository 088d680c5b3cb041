"""From blocks of a model tree to TVM libraries. Import as `from compile.x import y`: the name shadows a builtin."""
