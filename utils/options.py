"""A command line from a typed table: one frozen dataclass, one field per flag."""

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Table = TypeVar("Table")
Defaults = Mapping[str, Mapping[str, object]]
# flag -> each word that it takes -> the flags that it stands for
Shorthands = Mapping[str, Mapping[str, Mapping[str, object]]]


def option(
    default: object,
    help: str,
    choices: Sequence[str] | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    only: str | Sequence[str] = (),
    aliases: Sequence[str] = (),
    without_name: bool = False,
) -> Any:  # dataclasses.field says so, too: the field has the type of its annotation
    """A field of such a table.

    Args:
        default: of the flag; a bool makes a switch, which takes 0 or 1, and is 1 when it is given alone
        help: what the command line says about it
        choices: the words that are allowed
        least, most, below: of a number, the least and the most that is allowed, and what it must stay below
        only: the modes in all of which the flag does something (see `parse`); none for any
        aliases: other names of the flag
        without_name: whether the program needs no `name` with it
    """
    limits = {"choices": choices, "least": least, "most": most, "below": below, "without_name": without_name}
    names = {"only": (only,) if isinstance(only, str) else tuple(only), "aliases": aliases}
    return dataclasses.field(default=default, metadata={"help": help, **names, **limits})


def parse(
    table: type[Table],
    description: str,
    argv: Sequence[str] | None = None,
    defaults: Callable[[Table], Mapping[str, object]] = lambda given: {},
    others: Defaults | None = None,
    modes: Callable[[Table], set[str]] = lambda options: set(),
    shorthands: Shorthands | None = None,
) -> Table:
    """Read the command line into a table of options; `name` is the only flag that must be given, if it has one.

    Args:
        table: a frozen dataclass whose fields are made by `option`
        description: for --help
        argv: the command line, by default the program's
        defaults: what replaces the table's defaults, in the light of the flags that were given
        others: where defaults are other ones -> these, for --help
        modes: the modes that the options choose; a flag that is `only` for another one is refused
        shorthands: flags that stand for others, which overrule `defaults` and are overruled by what is given
    """
    shorthands = shorthands or {}
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    fields = {field.name: field for field in dataclasses.fields(table)}
    for field in fields.values():
        _add(parser, field, others or {})
    for flag, words in shorthands.items():
        parser.add_argument(f"--{flag}", choices=words, help=_help_of_shorthand(words))
    given = vars(parser.parse_args(argv))
    named = [name for name, field in fields.items() if name == "name" or field.metadata["without_name"]]
    if "name" in fields and not any(name in given for name in named):
        parser.error("the following arguments are required: --name")
    short = {flag: words[given.pop(flag)] for flag, words in shorthands.items() if flag in given}
    chosen = {name: value for stands_for in short.values() for name, value in stands_for.items()}
    chosen |= {name: bool(value) if fields[name].type is bool else value for name, value in given.items()}
    options = table(**{**defaults(table(**chosen)), **chosen})
    for flag, names in {**short, **{name: [name] for name in given}}.items():
        for field in (fields[name] for name in names):
            _check(parser, field, getattr(options, field.name))
            lacking = [mode for mode in field.metadata["only"] if mode not in modes(options)]
            if lacking:
                parser.error(f"--{flag} does nothing here: it is for {lacking[0]}")
    return options


def arguments_of(options: object, modes: set[str]) -> list[str]:
    """A command line that says every option of a table that does something in these modes."""
    fields = [field for field in dataclasses.fields(options) if set(field.metadata["only"]) <= modes]
    given = {field.name: getattr(options, field.name) for field in fields}
    return [word for name, value in given.items() if value != "" for word in (f"--{name}", str(_shown(value)))]


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field, others: Defaults) -> None:
    """Add a flag and its aliases to the command line."""
    flags = [f"--{flag}" for flag in (field.name, *field.metadata["aliases"])]
    kind = {"type": field.type, "choices": field.metadata["choices"]}
    if field.type is bool:
        kind = {"type": int, "choices": (0, 1), "nargs": "?", "const": 1, "metavar": "0|1"}
    parser.add_argument(*flags, dest=field.name, help=_help(field, others), **kind)


def _help_of_shorthand(words: Mapping[str, Mapping[str, object]]) -> str:
    """What each word of a shorthand stands for."""
    stands = {
        word: " ".join(f"--{name} {_shown(value)}" for name, value in flags.items()) for word, flags in words.items()
    }
    return "; ".join(f"{word}: {flags or 'nothing'}" for word, flags in stands.items())


def _shown(value: object) -> object:
    """A value as it is given on the command line."""
    return int(value) if isinstance(value, bool) else value


def _help(field: dataclasses.Field, others: Defaults) -> str:
    """The help of a flag with its default, and the other defaults that it has elsewhere."""
    shown = [] if field.default == "" or field.default is False else [f"default: {_shown(field.default)}"]
    shown += [f"{where}: {defaults[field.name]}" for where, defaults in others.items() if field.name in defaults]
    return field.metadata["help"] + (f" ({'; '.join(shown)})" if shown else "")


def _check(parser: argparse.ArgumentParser, field: dataclasses.Field, value: object) -> None:
    """End the program when a number is outside its limits, or no number."""
    least, most, below = (field.metadata[limit] for limit in ("least", "most", "below"))
    if isinstance(value, float) and not math.isfinite(value):
        parser.error(f"--{field.name} must be a number, not {value}")
    if least is not None and value < least:
        parser.error(f"--{field.name} must be at least {least}")
    if most is not None and value > most:
        parser.error(f"--{field.name} must be at most {most}")
    if below is not None and value >= below:
        parser.error(f"--{field.name} must be below {below}")
