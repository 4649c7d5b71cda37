"""The page: Gradio over core. Imports run one way, launch.py -> webui -> core."""

import os

# Before Gradio is imported: it and its libraries send nothing to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
