"""What a node of the test's cluster runs in the place of a training: a fake job, ready at once."""

import sys

from core.worker.training.cluster.node import main

if __name__ == "__main__":
    main(sys.argv[1:], "tests.jobs.fake_jobs:train")
