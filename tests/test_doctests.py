"""Docstrings: their examples run, and everything on the front door is documented in full."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import napari_medgs as mg

SOURCE = Path(mg.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = sorted(name for name in mg.__all__ if not name.startswith("_"))


def modules_with_examples() -> list[str]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            parts = path.relative_to(SOURCE.parent).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    tests = [test for test in tests if test.examples]
    assert tests, f"{name} has examples that doctest does not find"
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def sections(thing: object) -> set[str]:
    """Return the numpydoc sections of a docstring."""
    text = inspect.getdoc(thing) or ""
    return set(re.findall(r"^([A-Z][A-Za-z ]+)\n-{3,}$", text, re.MULTILINE))


def missing_sections(name: str, thing: object) -> list[str]:
    """Return what the docstring of a function or class lacks."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return []
    have = sections(thing)
    lacks = []
    if inspect.isclass(thing):
        if issubclass(thing, Exception):
            return []
        if not have & {"Parameters", "Attributes"}:
            lacks.append("Parameters or Attributes")
    else:
        if inspect.signature(thing).parameters and "Parameters" not in have:
            lacks.append("Parameters")
        if thing.__annotations__.get("return") not in (None, "None") and not have & {
            "Returns",
            "Yields",
        }:
            lacks.append("Returns")
    if "Examples" not in have:
        lacks.append("Examples")
    return [f"{name}: {section}" for section in lacks]


def undocumented_parameters(name: str, thing: object) -> list[str]:
    """Return parameters of a function, or fields of a dataclass, that no section names."""
    if inspect.isfunction(thing):
        names = set(inspect.signature(thing).parameters) - {"self", "cls"}
    elif dataclasses.is_dataclass(thing):
        names = {f.name for f in dataclasses.fields(thing) if not f.name.startswith("_")}
    else:
        return []
    text = inspect.getdoc(thing) or ""
    listed: set[str] = set()
    for line in re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", text, re.MULTILINE):
        listed.update(part.strip() for part in line.split(","))
    return [f"{name}: '{parameter}' is not described" for parameter in sorted(names - listed)]


def methods(cls: type) -> list[tuple[str, object]]:
    """Return the public methods that a class defines."""
    return [
        (f"{cls.__name__}.{name}", getattr(cls, name))
        for name in vars(cls)
        if not name.startswith("_") and inspect.isroutine(getattr(cls, name))
    ]


def test_front_door_is_documented_in_full():
    """Every function and class: Parameters, Returns, Examples."""
    missing = [line for name in PUBLIC for line in missing_sections(name, getattr(mg, name))]
    assert not missing, "Sections that are missing:\n" + "\n".join(missing)


def test_front_door_describes_every_parameter():
    missing = [
        line for name in PUBLIC for line in undocumented_parameters(name, getattr(mg, name))
    ]
    assert not missing, "\n" + "\n".join(missing)


def test_methods_of_front_door_classes_have_docstrings():
    missing = [
        name
        for public in PUBLIC
        if inspect.isclass(getattr(mg, public))
        for name, method in methods(getattr(mg, public))
        if not inspect.getdoc(method)
    ]
    assert not missing, "\n" + "\n".join(missing)


def exported_functions() -> list[tuple[str, object]]:
    """Return the functions in ``__all__`` of all packages but the plugin and the command line."""
    found: dict[str, object] = {}
    for info in pkgutil.walk_packages(mg.__path__, "napari_medgs."):
        part = info.name.split(".")[1]
        if info.ispkg and part not in ("plugin", "cli") and not part.startswith("_"):
            package = importlib.import_module(info.name)
            for name in getattr(package, "__all__", ()):
                thing = getattr(package, name)
                if inspect.isfunction(thing):
                    found[f"{thing.__module__}.{name}"] = thing
    return sorted(found.items())


def test_exported_functions_describe_parameters_and_what_they_return():
    functions = exported_functions()
    assert len(functions) > 100
    missing = [
        line
        for name, thing in functions
        for line in missing_sections(name, thing)
        if not line.endswith("Examples")
    ]
    assert not missing, "\n" + "\n".join(missing)
