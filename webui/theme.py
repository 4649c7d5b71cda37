"""The look: Gradio's variables set from our own tokens, the stylesheet and the page's script.

The tokens (colours, radius, spacing) are CSS variables in assets/tokens.css, once for light
and once for dark. Here they are only handed to Gradio, so that its components follow them. No font,
script or picture comes from anywhere but this server.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from core.language import HTML_LANGUAGES, _, language
from webui.html import html

ASSETS = Path(__file__).resolve().parent.parent / "assets"
TOKENS = ASSETS / "tokens.css"
STYLES = ("style", "results", "data", "shape", "need", "form")
SCRIPTS = ("page", "form", "mapping", "charts")
LOGO = ASSETS / "logo.svg"

CJK = ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC")
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", *CJK, "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace", *CJK)

# Gradio's variable -> ours. The value is the same in dark: the token itself changes there.
_VARIABLES = {
    "body_background_fill": "var(--page)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--ink-soft)",
    "body_text_size": "14px",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--page)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "link_text_color_hover": "var(--accent-strong)",
    "link_text_color_active": "var(--accent)",
    "link_text_color_visited": "var(--accent)",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_radius": "var(--radius)",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--ink-soft)",
    "block_title_background_fill": "transparent",
    "block_title_border_width": "0px",
    "block_title_text_color": "var(--ink)",
    "block_title_text_size": "14px",
    "block_title_text_weight": "500",
    "block_title_padding": "0px",
    "block_info_text_color": "var(--ink-soft)",
    "block_info_text_size": "13px",
    "container_radius": "var(--radius)",
    "form_gap_width": "0px",
    "layout_gap": "16px",
    "panel_background_fill": "var(--surface)",
    "panel_border_width": "0px",
    "section_header_text_size": "14px",
    "input_background_fill": "var(--field)",
    "input_background_fill_focus": "var(--field)",
    "input_background_fill_hover": "var(--field)",
    "input_border_color": "var(--field-line)",
    "input_border_color_focus": "var(--accent)",
    "input_border_color_hover": "var(--ink-soft)",
    "input_border_width": "1px",
    "input_padding": "6px 10px",
    "input_placeholder_color": "var(--ink-soft)",
    "input_radius": "var(--radius)",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 2px var(--accent-ring)",
    "input_text_size": "14px",
    "button_border_width": "1px",
    "button_large_padding": "8px 16px",
    "button_large_radius": "var(--radius)",
    "button_large_text_size": "14px",
    "button_large_text_weight": "600",
    "button_medium_padding": "6px 14px",
    "button_medium_radius": "var(--radius)",
    "button_medium_text_size": "14px",
    "button_medium_text_weight": "500",
    "button_small_padding": "4px 10px",
    "button_small_radius": "var(--radius)",
    "button_small_text_size": "13px",
    "button_small_text_weight": "500",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "transparent",
    "button_primary_border_color_hover": "transparent",
    "button_primary_text_color": "var(--on-accent)",
    "button_primary_text_color_hover": "var(--on-accent)",
    "button_primary_shadow": "none",
    "button_primary_shadow_hover": "none",
    "button_primary_shadow_active": "none",
    "button_secondary_background_fill": "var(--surface)",
    "button_secondary_background_fill_hover": "var(--sunken)",
    "button_secondary_border_color": "var(--field-line)",
    "button_secondary_border_color_hover": "var(--ink-soft)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_text_color_hover": "var(--ink)",
    "button_secondary_shadow": "none",
    "button_secondary_shadow_hover": "none",
    "button_secondary_shadow_active": "none",
    "button_cancel_background_fill": "var(--surface)",
    "button_cancel_background_fill_hover": "var(--failed-soft)",
    "button_cancel_border_color": "var(--failed)",
    "button_cancel_border_color_hover": "var(--failed)",
    "button_cancel_text_color": "var(--failed)",
    "button_cancel_text_color_hover": "var(--failed)",
    "button_transform_hover": "none",
    "button_transform_active": "none",
    "button_transition": "background-color 120ms ease, border-color 120ms ease",
    "checkbox_background_color": "var(--field)",
    "checkbox_background_color_focus": "var(--field)",
    "checkbox_background_color_hover": "var(--field)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--field-line)",
    "checkbox_border_color_focus": "var(--accent)",
    "checkbox_border_color_hover": "var(--ink-soft)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_border_radius": "3px",
    "checkbox_label_background_fill": "transparent",
    "checkbox_label_background_fill_hover": "var(--sunken)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)",
    "checkbox_label_border_color": "var(--field-line)",
    "checkbox_label_border_color_hover": "var(--ink-soft)",
    "checkbox_label_border_width": "1px",
    "checkbox_label_gap": "0px",
    "checkbox_label_padding": "5px 10px",
    "checkbox_label_shadow": "none",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "checkbox_label_text_size": "13px",
    "checkbox_label_text_weight": "400",
    "checkbox_shadow": "none",
    "error_background_fill": "var(--failed-soft)",
    "error_border_color": "var(--failed)",
    "error_border_width": "1px",
    "error_icon_color": "var(--failed)",
    "error_text_color": "var(--failed)",
    "loader_color": "var(--accent)",
    "slider_color": "var(--accent)",
    "stat_background_fill": "var(--accent-soft)",
    "table_border_color": "var(--line)",
    "table_even_background_fill": "var(--surface)",
    "table_odd_background_fill": "var(--surface)",
    "table_radius": "var(--radius)",
    "table_row_focus": "var(--accent-soft)",
    "table_text_color": "var(--ink)",
    "accordion_text_color": "var(--ink)",
    "code_background_fill": "var(--sunken)",
    "shadow_drop": "none",
    "shadow_drop_lg": "0 8px 24px rgb(0 0 0 / 0.16)",
    "shadow_inset": "none",
    "shadow_spread": "0px",
}


@cache
def style() -> str:
    """Our styles, as Gradio would take them: once more within its page, where they count for more
    than its own. Given to Gradio they come late, and are taken apart in each browser."""
    text = "".join((ASSETS / f"{name}.css").read_text("utf-8") for name in STYLES)
    return f"{text}\n.gradio-container.gradio-container .contain {{\n{text}}}\n"


@cache
def script() -> str:
    """Our scripts, which are one file: each file that a page waits for costs it time."""
    return "".join((ASSETS / f"{name}.js").read_text("utf-8") for name in SCRIPTS)


def head() -> Markup:
    """What the page loads of ours before it draws, with the texts of its scripts in the language in
    use."""
    return html.theme.head(_script_texts(), _mark(script()))


def foot() -> Markup:
    """What stands last in the page: our styles, after all of Gradio's."""
    return html.theme.style(_mark(style()))


def late_head() -> Markup:
    """What has to come after Gradio, which takes the browser's language for the page's."""
    return html.theme.late_head(HTML_LANGUAGES[language()])


def _mark(text: str) -> str:
    """Another one for another text: by it a browser keeps the file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _script_texts() -> dict[str, str]:
    """What the scripts say (`_("...")`), by its template."""
    said = (json.loads(text) for text in re.findall(r"\b_\((\"(?:[^\"\\]|\\.)*\")", script()))
    return {template: str(_(template)) for template in said}


def theme() -> gr.themes.Base:
    """Gradio's base theme on our tokens and the system's fonts."""
    base = gr.themes.Base(font=list(SANS), font_mono=list(MONO))
    # With the theme and not with the page's styles, so that the login has them too.
    base.custom_css = TOKENS.read_text(encoding="utf-8")
    both: dict[str, str] = {}
    for name, value in _VARIABLES.items():
        both[name] = value
        if hasattr(base, f"{name}_dark"):
            both[f"{name}_dark"] = value
    return base.set(**both)


def plotly_script() -> Path:
    """plotly.js as the plotly package brings it; the package itself is not imported for it.

    Raises FileNotFoundError when the package is not installed.
    """
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The plotly package is missing: run python launch.py setup.")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"
