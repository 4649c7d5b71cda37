"""The page's HTML, whose templates stand in webui/templates (`core.html`)."""

from __future__ import annotations

from pathlib import Path

from core.html import Templates

html = Templates(Path(__file__).parent / "templates")
