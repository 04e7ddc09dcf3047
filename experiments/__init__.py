"""The launcher, its stages, and what they leave behind.

What it imports is found beside it first, not in a folder of the same name where it is started.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
if sys.path[:1] != [_ROOT]:
    sys.path.insert(0, _ROOT)
for _name in ("configs", "lgd"):
    _file = getattr(sys.modules.get(_name), "__file__", None)
    if _file is not None and str(Path(_file).resolve().parents[1]) != _ROOT:
        raise ImportError(f"{_name}: expected the package in {_ROOT}, got {_file}")
