"""A row as a prompt to answer and the reference answer that a reward may compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.data.record import DatasetInfo
from core.errors import DataError
from core.tokens.tokenize import with_system_prompt
from core.tokens.tool_turns import answer_text


@dataclass(frozen=True)
class Prompted:
    """`prompt` ends where the model is to answer; `answer` is None where the row has none."""

    prompt: list[dict[str, Any]]
    answer: str | None
    tools: Any = None


def prompted(row: dict[str, Any], system_prompt: str = "") -> Prompted:
    """The prompt of a row and its reference answer.

    Rows of conversations give their last answer, and what comes before it as the prompt. Raises
    DataError when there is nothing to answer.
    """
    if "prompt" in row and "completion" not in row:
        prompt, answer = list(row["prompt"]), row.get("answer")
    else:
        turns = [*(row.get("prompt") or []), *(row.get("completion") or row.get("messages") or [])]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
        if last < 0:
            raise DataError("No turn of it is an answer.", "Import it as prompt-only rows.")
        prompt, answer = turns[:last], answer_text(turns[last])
    if not prompt:
        raise DataError("It has nothing to answer.", "Import it with a prompt.")
    return Prompted(with_system_prompt(prompt, system_prompt), answer, row.get("tools"))


def has_answers(info: DatasetInfo) -> bool | None:
    """Whether rows of the train part have reference answers; None where that cannot be told.

    Told by the file's own counts, without reading the rows.
    """
    if info.form in ("prompt-completion", "messages"):
        return True
    if info.form != "prompt-only":
        return None
    import pyarrow.parquet as pq

    path = info.rows_path("train")
    if not path.is_file():
        return None
    meta = pq.read_metadata(path)
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        answers = next((one for one in columns if one.path_in_schema == "answer"), None)
        if answers is None or answers.statistics is None:
            return None
        if answers.statistics.null_count < group.num_rows:
            return True
    return False
