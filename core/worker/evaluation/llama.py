"""On a CPU llama.cpp writes an evaluation's answers as it does those of a chat, several at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from core.worker.chat.llama import LlamaVoice, Wanted, is_here, llama_voices
from core.worker.evaluation.evaluator import Evaluator
from core.worker.evaluation.kept import Answers

AT_ONCE = 8
"""So many answers are written at once where the memory holds them."""
_LOOK_SECONDS = 0.3

Share = Callable[[float], None]


def open_llama(
    evaluator: Evaluator[Any],
    wanted: Mapping[int, Wanted | None],
    longest: int,
) -> dict[int, LlamaVoice]:
    """What answers for each model, prompt and answer together having so many tokens; {} where one
    of them can only be asked in transformers, so that models are compared by one engine. To be
    closed."""
    known = {place: one for place, one in wanted.items() if one is not None}
    if not is_here(evaluator.device) or len(known) < len(wanted):
        return {}
    voices, why = llama_voices(
        evaluator.workspace,
        known,
        lambda share, message: evaluator.task.tell(0.0, message),
        AT_ONCE,
        longest,
    )
    for told in why:
        evaluator.task.log(told)
    if len(voices) == len(wanted):
        return voices
    close_llama(voices)
    return {}


def close_llama(voices: Mapping[int, LlamaVoice]) -> None:
    for server in {id(voice.server): voice.server for voice in voices.values()}.values():
        server.close()


def llama_answers(
    voice: LlamaVoice,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    tell: Share,
    kept: Answers,
    **more: Any,
) -> list[str]:
    """As `core.worker.evaluation.measure.write_answers`, which see; `more` are options of
    llama.cpp's /completion."""
    room = voice.server.context - max_new_tokens

    def write(place: int) -> str:
        ids = voice.most_probable(prompts[place], max_new_tokens, **more)
        return str(voice.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    fitting = [place for place, prompt in enumerate(prompts) if len(prompt) <= room]
    found = several(write, fitting, kept, tell, voice.server.close, voice.server.at_once)
    return [found.get(place, "") for place in range(len(prompts))]


def several(
    write: Callable[[int], str],
    places: Sequence[int],
    kept: Answers,
    tell: Share,
    close: Callable[[], None],
    at_once: int,
) -> dict[int, str]:
    """What `write` gives for each place that is not `kept`, and for those what is, so many
    `at_once`. `close` ends those that are being written, when something goes wrong."""
    found = dict(kept.known)
    new = [place for place in places if place not in found]
    tell(0.0)
    with ThreadPoolExecutor(at_once) as pool:
        try:
            waiting = {pool.submit(write, place): place for place in new}
            while waiting:
                for one in wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED).done:
                    place = waiting.pop(one)
                    found[place] = one.result()
                    kept.wrote(place, found[place])
                tell(1 - len(waiting) / len(new))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            close()
            raise
    return found
