"""Runs in the program's process before its first statement, in the place of the program's own sitecustomize.

The interpreter imports a module of this name at start-up (site(7) of the Python library), and `thermocline
run` puts this directory first on PYTHONPATH. Everything of that is undone first, so that neither the program
nor its children see a trace; at the end the sitecustomize that the program would have had is imported in
turn.
"""

import json
import os
import sys
import traceback
from typing import Any


def _restore() -> dict[str, Any] | None:
    """Make environment and path as they were; return the settings of `thermocline run`, if there are any."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    text = os.environ.pop("THERMOCLINE_RUN", None)
    if text is None:
        return None
    settings: dict[str, Any] = json.loads(text)
    for name, was in (("PYTHONPATH", settings.pop("pythonpath")), ("LD_PRELOAD", settings.pop("preload"))):
        if was is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = was
    return settings


def _begin(settings: dict[str, Any]) -> None:
    """Hand over to the very package that the wrapper belongs to, wherever the program's path would lead."""
    import importlib.util

    if "thermocline" not in sys.modules:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        spec = importlib.util.spec_from_file_location("thermocline", os.path.join(root, "__init__.py"))
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["thermocline"] = package
        spec.loader.exec_module(package)
    from thermocline.cli import inside

    inside.begin(settings)


_settings = _restore()
if _settings is not None:
    try:
        _begin(_settings)
    except Exception:
        # The site module would print a line and let the program run on, untiered.
        traceback.print_exc()
        os._exit(2)

# The program's own sitecustomize takes the name and the place of this one. Where there is none, the import
# error is the one that the site module passes over in any interpreter.
del sys.modules["sitecustomize"]
import sitecustomize  # noqa: E402, F401 - another file, now that this directory is off the path
