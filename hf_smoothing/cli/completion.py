"""`hf-smoothing completion`: verbs and options by the Tab key, in bash and zsh."""

from __future__ import annotations

import argparse
from typing import Any


SCRIPT = """\
[ -n "$ZSH_VERSION" ] && autoload -U +X compinit bashcompinit && compinit && bashcompinit
_hf_smoothing() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{verbs}" -- "$word")); return; fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;; *) COMPREPLY=() ;; esac
}}
complete -o default -F _hf_smoothing hf-smoothing
"""


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "completion", help='completion by Tab in bash and zsh: eval "$(hf-smoothing completion)"'
    )
    parser.set_defaults(run=run, verbs=commands.choices)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing completion`."""
    verbs: dict[str, argparse.ArgumentParser] = args.verbs
    cases = "\n".join(f'    {name}) options="{" ".join(_options(verb))}" ;;' for name, verb in verbs.items())
    print(SCRIPT.format(verbs=" ".join(verbs), cases=cases), end="")
    return 0


def _options(verb: argparse.ArgumentParser) -> list[str]:
    shown = [action for action in verb._actions if action.help != argparse.SUPPRESS]
    return [word for action in shown for word in action.option_strings if word.startswith("--")]
