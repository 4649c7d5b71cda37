"""A preload that hangs the first time, while its fork server is to be killed."""

import os
import time
from pathlib import Path

mark = Path(os.environ["HANGING_ONCE"])
if not mark.exists():
    mark.write_text(str(os.getpid()))
    time.sleep(3600)
