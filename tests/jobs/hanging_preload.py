"""A module whose import waits for ever, as a driver that hangs does."""

import threading

threading.Event().wait()
