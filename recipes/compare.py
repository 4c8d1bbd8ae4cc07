"""Run a recipe over arms and seeds, and say whether pruning paid.

    python recipes/compare.py recipes/translate.py --arms infobatch --seeds 3 --output_dir comparison -- --bf16 True

is `hf-prune compare recipes/translate.py ...`, and `hf-prune compare --help` says how it works.
"""

import sys

from hf_prune.compare.command import main

if __name__ == "__main__":
    sys.exit(main())
