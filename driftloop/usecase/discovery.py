"""Finds use cases: folders on DRIFTLOOP_USECASES first, then entry points; imports only the one that is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from driftloop.usecase.declaration import UseCase
from driftloop.usecase.errors import DeclarationError, UnknownUseCase, UseCaseError

ENTRY_POINT_GROUP = "driftloop.usecases"
_PACKAGE = "driftloop_usecases"


def search_path(configured: str = "") -> list[Path]:
    """Folders that hold use cases: `configured` (os.pathsep separated), or `usecases` in the working folder and the checkout."""
    if configured:
        return [Path(part).expanduser() for part in configured.split(os.pathsep) if part]
    return [Path("usecases"), Path(__file__).resolve().parents[2] / "usecases"]


def _load(path: Path, module_name: str) -> ModuleType:
    if module_name in sys.modules and getattr(sys.modules[module_name], "__file__", None) == str(path):
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever an author's file raises
        del sys.modules[module_name]
        if isinstance(error, UseCaseError):
            raise
        raise DeclarationError(f"{path} cannot be imported: {_place(error, path)}") from error
    return module


def _package(folder: Path, name: str) -> str:
    """The package that the files of `folder` are loaded into, so that they can import what lies beside them (`from .tables import …`).

    Another folder's files of the same use case are forgotten, so that nobody is given those of the one that was asked for before.
    """
    package = f"{_PACKAGE}.{name}"
    if getattr(sys.modules.get(package), "__path__", None) != [str(folder)]:
        for loaded in [module for module in sys.modules if module.startswith(f"{package}.")]:
            del sys.modules[loaded]
        for module, path in ((_PACKAGE, []), (package, [str(folder)])):
            sys.modules[module] = ModuleType(module)
            sys.modules[module].__path__ = path
    return package


def _place(error: Exception, path: Path) -> str:
    """The line of the file that an error comes from, and what it is."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    what, line = f"{type(error).__name__}: {error}", lines[-1] if lines else None
    if isinstance(error, SyntaxError) and error.filename == str(path):
        what, line = f"{type(error).__name__}: {error.msg}", error.lineno
    return what if line is None else f"line {line}: {what}"


def _module(name: str, part: str, configured: str) -> ModuleType:
    folders = search_path(configured)
    for folder in folders:
        path = (folder / name / f"{part}.py").resolve()
        if path.is_file():
            return _load(path, f"{_package(path.parent, name)}.{part}")
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return importlib.import_module(f"{entry.module}.{part}")
    looked = ", ".join(str(folder) for folder in folders)
    raise UnknownUseCase(
        f"no use case {name!r}: looked for {name}/{part}.py in {looked} and for an entry point of {ENTRY_POINT_GROUP}"
    )


def load_use_case(name: str, configured: str = "") -> UseCase:
    """The declared use case `name`; UnknownUseCase if there is none, DeclarationError if its file cannot be imported or declares none."""
    module = _module(name, "usecase", configured)
    found = [value for value in vars(module).values() if isinstance(value, UseCase)]
    if len(found) != 1 or found[0].name != name:
        raise DeclarationError(
            f"{module.__file__} must declare exactly one UseCase named {name!r}; found {[u.name for u in found]}"
        )
    return found[0]


def load_replay(name: str, configured: str = "") -> ModuleType:
    """The module `replay` beside the declaration; UnknownUseCase if there is none, DeclarationError if it cannot be imported."""
    return _module(name, "replay", configured)
