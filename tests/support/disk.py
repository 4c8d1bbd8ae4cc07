"""A disk that is full, for real: the system refuses to write."""

import contextlib
import resource


@contextlib.contextmanager
def largest_file(size: int):
    """Within the block, no file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
