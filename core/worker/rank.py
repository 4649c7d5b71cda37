"""`python -m core.worker.rank FOLDER WORKSPACE [CHECKPOINT]`: what accelerate starts for each
device of a run, which is `core.worker.training.rank`."""

from __future__ import annotations

import sys

from core.jobs.process import staying

if __name__ == "__main__":
    with staying():
        from core.worker.training.rank import main

    main(sys.argv[1:])
