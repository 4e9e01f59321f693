"""``import metafuse`` is light: it starts nothing, looks for no plugin, and imports only NumPy and pluggy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROBE = """
import json, sys
import numpy
before = set(sys.modules)
started = []
scanned = []

def audit(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec", "socket.connect"):
        started.append(event)

import importlib.metadata
original = importlib.metadata.entry_points
def entry_points(*args, **kwargs):
    scanned.append(kwargs)
    return original(*args, **kwargs)
importlib.metadata.entry_points = entry_points

sys.addaudithook(audit)
import metafuse
threads = __import__("threading").active_count()
loaded = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"started": started, "scanned": scanned, "threads": threads, "loaded": loaded}))
"""


def probe(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_starts_nothing_and_loads_only_numpy_pluggy_and_the_standard_library():
    seen = json.loads(probe(PROBE))
    assert seen["started"] == []
    assert seen["scanned"] == []
    assert seen["threads"] == 1
    allowed = set(sys.stdlib_module_names) | {"metafuse", "numpy", "pluggy"}
    # Modules that path hooks of the environment itself load (editable installs, for example) are not metafuse's doing.
    others = [name for name in seen["loaded"] if name not in allowed and not name.startswith("__editable__")]
    assert others == []


def test_import_needs_no_home_directory_and_writes_no_file(tmp_path):
    probe(
        "import metafuse", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"), METAFUSE_CACHE_DIR=""
    )
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_exists():
    code = "import metafuse; print([n for n in dir(metafuse) if not hasattr(metafuse, n)])"
    assert probe(code).strip() == "[]"
