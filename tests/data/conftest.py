"""Where shrunk pictures are kept, and pictures."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hf_prune" / "features"


@pytest.fixture
def pictures(rng):
    return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(5)]
