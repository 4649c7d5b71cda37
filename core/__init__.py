"""Tunesmith's backend: everything but the page. Nothing here imports gradio or webui."""
