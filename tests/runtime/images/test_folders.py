"""Which files are pictures of the user's."""

import pytest

from runtime.images.folders import image_files, is_hidden, subfolders


def test_what_systems_leave_is_passed_over(tmp_path):
    for name in ("b.JPG", "a.png", "cat/c.webp", ".DS_Store", "Thumbs.db", "._a.png", "cat/._c.webp", "notes.txt",
                 "cat/.ipynb_checkpoints/c-checkpoint.png", "__MACOSX/cat/c.png", "@eaDir/a.png"):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [str(file.relative_to(tmp_path)) for file in image_files(tmp_path)] == ["a.png", "b.JPG", "cat/c.webp"]
    assert [folder.name for folder in subfolders(tmp_path)] == ["cat", "folder.png"]


def test_a_hidden_folder_that_was_asked_for_is_looked_into(tmp_path):
    home = tmp_path / ".cache" / "pictures"
    home.mkdir(parents=True)
    (home / "a.png").write_bytes(b"")
    assert image_files(home) == [home / "a.png"]


@pytest.mark.parametrize(("name", "hidden"), [(".x", True), ("._x.jpg", True), ("__MACOSX", True), ("x.", False)])
def test_hidden_names(name, hidden):
    assert is_hidden(name) is hidden
