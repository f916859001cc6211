"""`python -m ftkit` is `ftkit`: what `torchrun --nproc-per-node 2 -m ftkit train lora ...` starts."""

import sys

from ftkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
