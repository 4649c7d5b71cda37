"""The page: Gradio over core. Imports run one way, launch.py -> webui -> core.

A file or a folder for each tab, in the order of the work: `data`, `configure`, `train`, `evaluate`,
`chat`, `export`, `runs`, each with `build(app, shared)`; what several tabs use stands beside them.
"""

import os

# Before Gradio is imported: it and its libraries send nothing to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
