"""pipx, for one local wheel: an environment of its own in /var/lib/pipx, its command in /root/bin. Fetches nothing.

The real one is told by PIPX_HOME and PIPX_BIN_DIR where to put them; in a lab's host those folders are the machine's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.wheel import install

HOME, COMMAND = Path("/var/lib/pipx"), Path("/root/bin/warren")


def main(verb: str, *words: str) -> None:
    what = next(word for word in words if not word.startswith("-"))
    if verb == "uninstall":
        shutil.rmtree(HOME / what)
        COMMAND.unlink()
        HOME.rmdir()
        return
    wheel = Path(what.partition("[")[0]).resolve()
    if (HOME / "warren").exists() and "--force" not in words:
        raise SystemExit("warren is installed already")
    bin_ = install(wheel, HOME / "warren")
    COMMAND.unlink(missing_ok=True)
    COMMAND.symlink_to(bin_ / "warren")


if __name__ == "__main__":
    main(*sys.argv[1:])
