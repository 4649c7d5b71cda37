"""The table that renames labels: each label with its rows and the name it is to have.

What is typed goes at once into the field of the step, as JSON, which is YAML too: the table is
another way to write the same setting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import gradio as gr

from webui import messages

_TOLD_CLASSES = 12

# Writes the names that differ into the field with the id in data-field, and tells what becomes of
# the classes. `input` bubbles up from each cell.
_SCRIPT = """
const told = (rows) => {
  const classes = new Map();
  let left = 0;
  for (const [, count, name] of rows) {
    if (name) classes.set(name, (classes.get(name) || 0) + count);
    else left += count;
  }
  const sorted = [...classes].sort((a, b) => b[1] - a[1]);
  const shown = sorted.slice(0, MOST).map(([name, count]) => `${name} ${count.toLocaleString()}`);
  const more = sorted.length > MOST ? `, and ${sorted.length - MOST} more` : '';
  const kept = `${sorted.length} ${sorted.length === 1 ? 'class' : 'classes'}: `;
  const gone = left ? `; ${left.toLocaleString()} rows left out` : '';
  return kept + shown.join(', ') + more + gone;
};
const follow = () => {
  const cells = [...element.querySelectorAll('input[data-label]')];
  const rows = cells.map((cell) =>
    [cell.dataset.label, Number(cell.dataset.rows), cell.value.trim()]);
  for (const cell of cells) {
    const same = cell.value.trim() === cell.dataset.label;
    cell.closest('tr').classList.toggle('is-renamed', !same);
  }
  const line = element.querySelector('.classes');
  if (line) line.textContent = told(rows);
  return rows;
};
element.addEventListener('input', () => {
  const table = element.querySelector('table');
  const names = follow().filter(([label, , name]) => label !== name);
  const held = document.querySelector(`#${table.dataset.field} textarea`);
  if (!held) return;
  held.value = names.length
    ? JSON.stringify(Object.fromEntries(names.map(([label, , name]) => [label, name]))) : '';
  held.dispatchEvent(new Event('input', {bubbles: true}));
});
follow();
watch('value', follow);
""".replace("MOST", str(_TOLD_CLASSES))


def label_table() -> gr.HTML:
    return gr.HTML(
        js_on_load=_SCRIPT, elem_id="label-table", apply_default_css=False, show_label=False
    )


def render(labels: Mapping[str, int], names: Mapping[str, str], field: str) -> str:
    """`labels` with their rows; `names` are the new names given so far; `field` is the element
    that holds them."""
    if not labels:
        return ""
    lower = {old.strip().lower(): new for old, new in names.items()}
    rows = "".join(
        _row(label, count, lower.get(label.strip().lower(), label))
        for label, count in labels.items()
    )
    return (
        f'<table class="labels" data-field="{messages.escape(field)}"><thead><tr><th>Label</th>'
        f'<th class="num">Rows to learn</th><th>New name</th></tr></thead><tbody>{rows}</tbody>'
        '</table><p class="aside classes" aria-live="polite"></p>'
    )


def _row(label: str, count: int, name: str) -> str:
    shown = messages.escape(label)
    return (
        f'<tr><td>{shown}</td><td class="num">{count:,}</td><td><input type="text" '
        f'value="{messages.escape(name)}" data-label="{shown}" data-rows="{count}" '
        f'aria-label="New name of {shown}" placeholder="left out"></td></tr>'
    )


def before_renaming(now: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Labels that a table may be asked about: those there are, and those that were renamed."""
    found: Counter[str] = Counter(dict(now))
    for old in names:
        found.setdefault(old, 0)
    return dict(found)
