"""The command line: ``lggwjax run``, ``measure``, ``claims`` and ``report``; each command has a module of its own."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import NoReturn

from lggwjax.cli import claims, compare, experiment, measure, report, run
from lggwjax.cli.console import shown

_COMMANDS = (run, measure, claims, experiment, compare, report)


class _OneLine(argparse.ArgumentParser):
    """Argument errors in one line that names the option, what was expected and what was given."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See: {self.prog} --help")


class _Shown(logging.Formatter):
    """What is logged, without what would steer a terminal: names of files of others may be told."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the library logs while a command runs, and leave the logger of the process as it was."""
    log = logging.getLogger("lggwjax")
    if log.handlers:
        yield
        return
    level, propagate, handler = log.level, log.propagate, logging.StreamHandler()
    handler.setFormatter(_Shown())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # else a handler of the root logger would say everything twice
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; by default those of this process.

    Returns:
        The exit status: 0 when all was done, 1 when a run did not finish, 2 when it was refused, 130 after Ctrl-C.
    """
    try:
        options = _parser().parse_args(arguments)
        with _log_on_stderr():
            return options.command(options)
    except KeyboardInterrupt:
        print("lggwjax: interrupted; the same command with --resume goes on from the last measurement", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"lggwjax: {_one_line(error)}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        print(f"lggwjax: {_one_line(error)}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:
        print(f"lggwjax: {_one_line(error) or type(error).__name__}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # what jax says of a device's memory
            raise
        said = "Take smaller batches, a smaller model or fewer samples, or a device with more memory."
        print(f"lggwjax: {_one_line(error)} {said}", file=sys.stderr)
        return 1


def _one_line(error: BaseException) -> str:
    return shown(" ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    parser = _OneLine(
        prog="lggwjax", description="Loss Gradient Gaussian Width: measure how complex the gradients of training are."
    )
    parser.add_argument("--version", action="version", version=f"lggwjax {version('lggwjax')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_OneLine)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
