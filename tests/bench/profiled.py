"""Runs `warren …` and samples where it is each time that it has used another tick of the processor.

    profiled.py FILE agent up …            SIGUSR1: begin; SIGUSR2: write FILE (JSON) and stop sampling

The innermost frame of Warren's own counts, with the line's function: time in C (system calls, a native engine) is its
caller's, since Python looks at signals when C returns. FILE: {"module:function": samples}.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY = 0.001
"""Seconds of processor time; the kernel rounds up to its tick."""
samples: Counter[str] = Counter()


def sample(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("warren."):
            samples[f"{name}:{frame.f_code.co_name}"] += 1
            return
        frame = frame.f_back
    samples["loop:"] += 1


def begin(number: int, frame: FrameType | None) -> None:
    samples.clear()
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)


def write(number: int, frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    new = Path(FILE + ".new")
    new.write_text(json.dumps(samples))
    new.rename(FILE)


FILE = sys.argv[1]

if __name__ == "__main__":
    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, write)
    signal.siginterrupt(signal.SIGPROF, False)
    sys.argv = ["warren", *sys.argv[2:]]
    from warren.cli.main import main

    sys.exit(main())
