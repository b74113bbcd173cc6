"""Print what the changelog says about a version: ``python tools/release_notes.py 0.1.0``.

Fails when that is not the package's version, when the changelog has no section of it, or when
fragments of changes have not gone into the changelog.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(version: str) -> str:
    """Give the text of a version's sections in the changelog."""
    source = (ROOT / "src/napari_medgs/__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{version}"' not in source:
        raise SystemExit(f"{version} is not the version in src/napari_medgs/__init__.py")
    left = [p.name for p in (ROOT / "changes").glob("*.md") if p.name != "README.md"]
    if left:
        raise SystemExit(f"run towncrier build first; not in the changelog yet: {', '.join(left)}")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^(?=## )", changelog, flags=re.MULTILINE)
    found = [
        s.partition("\n")[2] for s in sections if re.match(rf"## {re.escape(version)}\b(?!\.)", s)
    ]
    if not found:
        raise SystemExit(f"CHANGELOG.md has no section of {version}")
    return "\n".join(text.strip() for text in found)


if __name__ == "__main__":
    print(release_notes(*sys.argv[1:]))
