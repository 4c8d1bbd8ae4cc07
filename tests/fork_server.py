"""Where a test starts the processes that it kills: children of one that has imported much and runs no thread.

pytest's own process has run many threads, and a fork of it may lock up; a new interpreter would take seconds to import.
"""

import multiprocessing

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "datasets",
        "evaluate",
        "hf_prune.trainer",
        "transformers.models.bert.modeling_bert",
        "transformers.models.marian.modeling_marian",
    ]
)
