"""Bundles for boards: a model as plain C with its self-test (docs/boards.md)."""

from .boards import Board, load, names, tools
from .bundle import DoesNotFit, Options, Report, deploy

__all__ = ["Board", "DoesNotFit", "Options", "Report", "deploy", "load", "names", "tools"]
