"""A data set's fingerprint is that of its content."""

import io
import shutil

import datasets
from PIL import Image

from hf_prune.data.fingerprint import fingerprint


def test_the_fingerprint_of_files_is_that_of_their_content(pictures, tmp_path):
    def folder(name, shown):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(shown):
            (tmp_path / name / f"{number}.png").write_bytes(png_of(picture))
        paths = sorted(map(str, (tmp_path / name).iterdir()))
        return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())

    first = fingerprint(folder("first", pictures))
    assert fingerprint(folder("copy", pictures)) == first
    assert fingerprint(folder("other", pictures[::-1])) != first
    gone = folder("gone", pictures)
    shutil.rmtree(tmp_path / "gone")
    assert isinstance(fingerprint(gone), int)


def png_of(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
