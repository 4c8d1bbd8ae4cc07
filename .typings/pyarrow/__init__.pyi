"""What hf_prune uses of pyarrow, which has no types of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

class ArrowException(Exception): ...
class Array: ...

class Schema:
    names: list[str]

class Table:
    schema: Schema
    def __getattr__(self, name: str) -> Any: ...

def array(obj: np.ndarray, mask: np.ndarray | None = ..., from_pandas: bool | None = ...) -> Array: ...
def table(data: Mapping[str, Any]) -> Table: ...
def __getattr__(name: str) -> Any: ...
