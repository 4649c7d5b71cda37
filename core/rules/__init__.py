"""What settings do not go together, by themselves and with the data, the model and the machine.

Stands above the declarations, and above data, models and rewards. Whatever a person hands in, a
file, a command, a form or a preset, becomes a RunConfig by `parse_config` alone.
"""

from core.rules.parsing import load_config, parse_config, rule_problems

__all__ = ["load_config", "parse_config", "rule_problems"]
