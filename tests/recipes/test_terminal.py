"""The picture of a terminal."""

import sys
import xml.etree.ElementTree

import pytest
from recipe_runs import load

pytest.importorskip("rich")


def test_the_picture_shows_the_command_and_what_it_printed(tmp_path):
    terminal = load("benchmarks/terminal")
    path = tmp_path / "terminal.svg"
    terminal.main([str(path), "--", sys.executable, "-c", "print('row 7 is <wrong> ' + '=' * 70)"])
    first = path.read_text()
    texts = "".join(xml.etree.ElementTree.fromstring(first).itertext()).replace("\xa0", " ")
    assert "$ " in texts and "row 7 is <wrong> " + "=" * 70 in texts
    assert "url(http" not in first and "@font-face" not in first
    terminal.main([str(path), "--", sys.executable, "-c", "print('row 7 is <wrong> ' + '=' * 70)"])
    assert path.read_text() == first


def test_a_command_that_fails_draws_nothing(tmp_path):
    terminal = load("benchmarks/terminal")
    with pytest.raises(SystemExit, match="failed"):
        terminal.main([str(tmp_path / "no.svg"), "--", sys.executable, "-c", "raise SystemExit(3)"])
    assert not list(tmp_path.iterdir())
