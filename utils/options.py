"""A command line from a typed table: one frozen dataclass, one field per flag."""

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Table = TypeVar("Table")
Defaults = Mapping[str, Mapping[str, object]]


def option(
    default: object,
    help: str,
    choices: Sequence[str] | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    only: str = "",
    without_name: bool = False,
) -> Any:  # dataclasses.field says so, too: the field has the type of its annotation
    """A field of such a table.

    Args:
        default: of the flag; a bool makes a switch
        help: what the command line says about it
        choices: the words that are allowed
        least, most, below: of a number, the least and the most that is allowed, and what it must stay below
        only: the mode in which the flag does something (see `parse`); "" for any
        without_name: whether the program needs no `name` with it
    """
    limits = {"choices": choices, "least": least, "most": most, "below": below, "without_name": without_name}
    return dataclasses.field(default=default, metadata={"help": help, "only": only, **limits})


def parse(
    table: type[Table],
    description: str,
    argv: Sequence[str] | None = None,
    defaults: Callable[[Table], Mapping[str, object]] = lambda given: {},
    others: Defaults | None = None,
    modes: Callable[[Table], set[str]] = lambda options: set(),
) -> Table:
    """Read the command line into a table of options; `name` is the only flag that must be given, if it has one.

    Args:
        table: a frozen dataclass whose fields are made by `option`
        description: for --help
        argv: the command line, by default the program's
        defaults: what replaces the table's defaults, in the light of the flags that were given
        others: where defaults are other ones -> these, for --help
        modes: the modes that the options choose; a flag that is `only` for another one is refused
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    fields = {field.name: field for field in dataclasses.fields(table)}
    for name, field in fields.items():
        if field.type is bool:
            parser.add_argument(f"--{name}", action="store_true", help=field.metadata["help"])
        else:
            choices = field.metadata["choices"]
            parser.add_argument(f"--{name}", type=field.type, help=_help(field, others or {}), choices=choices)
    given = vars(parser.parse_args(argv))
    if not any(name in given for name, field in fields.items() if name == "name" or field.metadata["without_name"]):
        parser.error("the following arguments are required: --name")
    options = table(**{**defaults(table(**given)), **given})
    for name in given:
        _check(parser, fields[name], getattr(options, name))
        only = fields[name].metadata["only"]
        if only and only not in modes(options):
            parser.error(f"--{name} does nothing here: it is for {only}")
    return options


def arguments_of(options: object, modes: set[str]) -> list[str]:
    """A command line that says every option of a table that does something in these modes."""
    arguments = []
    for field in dataclasses.fields(options):
        value, only = getattr(options, field.name), field.metadata["only"]
        if value == "" or (only and only not in modes):
            continue
        if field.type is bool:
            arguments += [f"--{field.name}"] if value else []
        else:
            arguments += [f"--{field.name}", str(value)]
    return arguments


def _help(field: dataclasses.Field, others: Defaults) -> str:
    """The help of a flag with its default, and the other defaults that it has elsewhere."""
    shown = [] if field.default == "" else [f"default: {field.default}"]
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
