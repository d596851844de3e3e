"""Which files in a user's folder count: all but the hidden ones, wherever these lie."""

from persona.data.left_out import unread, visible

NAMES = ("b.csv", "a.csv", "deep/er/c.csv", ".d.csv", ".git/e.csv", "deep/._f.csv", "deep/.g/h.csv")


def test_hidden_files_and_what_lies_in_hidden_folders_are_passed_over(tmp_path):
    """The folder itself may be hidden, for it is the one that was asked for."""
    root = tmp_path / ".cache" / "log"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    assert visible(root, ["*.csv", "a.*"]) == [root / "a.csv", root / "b.csv"]
    assert visible(root, ["**/*"]) == [root / "a.csv", root / "b.csv", root / "deep/er/c.csv"]
    assert unread(root, {root / "a.csv"}, "one is enough", ["*.csv"]) == (
        "b.csv: not read; one is enough",
        "deep/er/c.csv: not read; one is enough",
    )
