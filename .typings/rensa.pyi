"""What hf_prune uses of rensa, which has no types of its own."""

import numpy as np

class RMinHash:
    @classmethod
    def digest_matrix_from_flat_token_hashes(
        cls, token_hashes: np.ndarray, row_offsets: np.ndarray, num_perm: int, seed: int
    ) -> RMinHashDigestMatrix: ...

class RMinHashDigestMatrix:
    def to_rows(self) -> list[list[int]]: ...
