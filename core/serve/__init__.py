"""An OpenAI-compatible server of what a run trained. No torch: its engines are in core.worker."""
