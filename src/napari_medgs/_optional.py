"""Packages that only some features need, and what to say where one is missing."""

from __future__ import annotations

from importlib import import_module

from napari_medgs.errors import MissingPackageError

_PIP_NAMES = {
    "fast_simplification": "fast-simplification",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "torch_geometric": "torch-geometric",
}


def pip_name(module: str) -> str:
    """Return the name under which pip knows the package of a module.

    Examples
    --------
    >>> pip_name("sklearn")
    'scikit-learn'
    """
    return _PIP_NAMES.get(module, module)


def require(*modules: str, feature: str) -> None:
    """Import modules that a feature needs, or say how to install those that are missing.

    Parameters
    ----------
    *modules : str
        Names as in an import statement, such as "torch_geometric".
    feature : str
        What needs them, as the user calls it, such as "classify".

    Raises
    ------
    MissingPackageError
        When a module cannot be imported; the message has the pip command.

    Examples
    --------
    >>> from napari_medgs._optional import require
    >>> require("numpy", feature="fit")
    >>> require("no_such_module", feature="fit")
    Traceback (most recent call last):
    ...
    napari_medgs.errors.MissingPackageError: fit needs no_such_module, which is not installed: \
pip install no_such_module
    """
    missing = []
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            # A package that is there but lacks one of its own dependencies names that one.
            missing.append((error.name or module).partition(".")[0])
    if missing:
        names = [pip_name(name) for name in dict.fromkeys(missing)]
        verb = "is" if len(names) == 1 else "are"
        raise MissingPackageError(
            f"{feature} needs {' and '.join(names)}, which {verb} not installed: "
            f"pip install {' '.join(names)}"
        )
