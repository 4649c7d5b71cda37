"""`rewards`: the functions that reinforcement can learn from, and how one is tried."""

from __future__ import annotations

import argparse
from typing import Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, table
from core.language import _

# Named here so that parsing needs no imports; a test holds them against the kinds.
OPTIONS = (
    "weight name skip_thinking find marker ignore_case ignore_punctuation tolerance where top "
    "json_schema schema_file only_json pattern match dot_all unit target minimum maximum model "
    "scale batch_size max_length rubric temperature max_new_tokens tries most_failures "
    "requests_at_once requests_per_minute timeout_seconds file function"
).split()


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("rewards", help=_("list and try reward functions"))
    actions = parser.add_subparsers(title=_("actions"), metavar="ACTION", required=True)

    listing = actions.add_parser(
        "list", parents=[common], help=_("every kind of reward function, or one with its options")
    )
    listing.add_argument("kind", metavar="KIND", nargs="?", help=_("such as regex"))
    listing.set_defaults(run=run_list)

    trial = actions.add_parser(
        "try",
        parents=[common],
        help=_("what a function says of one answer"),
        description=_(
            "Gives an answer to a reward function as a run would. Its options are those of "
            "`rewards list KIND`, each as --NAME VALUE. Own functions come from the "
            "workspace's folder rewards; a judge is asked at TUNESMITH_OPENAI_BASE_URL with "
            "TUNESMITH_OPENAI_API_KEY."
        ),
    )
    trial.add_argument("kind", metavar="KIND", help=_("such as json_valid"))
    trial.add_argument(
        "--completion", required=True, metavar="TEXT", help=_("the answer to reward")
    )
    trial.add_argument("--prompt", default="", metavar="TEXT", help=_("what was asked"))
    trial.add_argument("--answer", metavar="TEXT", help=_("the reference answer, if there is one"))
    trial.add_argument(
        "--tokenizer", default="", metavar="MODEL", help=_("whose tokens a length counts")
    )
    for name in OPTIONS:
        option = "--" + name.replace("_", "-")
        both = [option] if option == f"--{name}" else [option, f"--{name}"]
        trial.add_argument(*both, dest=f"option_{name}", help=argparse.SUPPRESS)
    trial.set_defaults(run=run_try)


def run_list(args: argparse.Namespace, output: Output) -> int:
    from core.errors import did_you_mean
    from core.rewards.specs import catalogue

    found = catalogue()
    if args.kind is None:
        rows = [(one["kind"], one["title"], one["sentence"]) for one in found]
        output.result({"rewards": found}, table((_("KIND"), _("TITLE"), _("REWARDS")), rows))
        return DONE
    for one in found:
        if one["kind"] == args.kind:
            output.result(one, _described(one))
            return DONE
    names = [one["kind"] for one in found]
    raise UsageError(
        _(
            "There is no kind {name!r}{end}",
            name=args.kind,
            end=did_you_mean(args.kind, names),
        ),
        _("There are: {names}.", names=", ".join(names)),
    )


def run_try(args: argparse.Namespace, output: Output) -> int:
    from core.jobs.process import named

    value: dict[str, Any] = {"kind": args.kind}
    for name in OPTIONS:
        text = getattr(args, f"option_{name}")
        if text is not None:
            value[name] = _mapping(text) if name == "json_schema" else text
    workspace = open_workspace(args, args.tokenizer or None)
    # Here and not in a worker: this process ends with the answer.
    found = named("core.worker.rewards:try_reward")(
        workspace.root, value, args.prompt, args.completion, args.answer, args.tokenizer
    )
    reward = found["reward"]
    text = f"{reward:.6g}" if reward is not None else _("none: it does not apply to this answer")
    weighted = found["weighted"]
    if reward is not None and weighted != reward:
        text = _("{reward:.6g}, weighted {weighted:.6g}", reward=reward, weighted=weighted)
    output.result(found, text)
    return DONE


def _described(one: dict[str, Any]) -> str:
    lines: list[str] = [f"{one['title']}: {one['sentence']}"]
    if one["needs_answer"]:
        lines.append(_("The rows need reference answers."))
    for option in one["options"]:
        default = option["default"]
        shown = "" if default in (None, "", {}) else str(default)
        told = [(_("default"), shown), (_("takes"), option["allowed"])]
        lines += ["", f"--{option['name'].replace('_', '-')}", _indented(option["help"])]
        lines.append(_indented(pairs(told)))
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _mapping(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            _("--json-schema is not JSON: {error}.", error=error),
            _("Give it in one line, or as --schema-file."),
        ) from error
