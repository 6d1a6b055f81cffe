"""What the figures were made on: kind of processor, kernel, and how fast one core of it encrypts."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CIPHERS = {"AES-128-GCM": "aes-128-gcm", "ChaCha20-Poly1305": "chacha20-poly1305"}
RECORD = 1408
"""Bytes: a packet's worth."""


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kernel = re.match(r"[\d.]*\d", platform.release())
    return {
        "cores": len(models) or None,
        "processor": models[0] if models else platform.machine(),
        "kernel": f"Linux {kernel[0] if kernel else ''}".strip(),
        "python": platform.python_version(),
        "encrypts": {name: speed(cipher) for name, cipher in CIPHERS.items()},
    }


def speed(cipher: str) -> float | None:
    """Gbit/s of one core, packets of `RECORD` bytes; None where openssl is missing or does not say."""
    if shutil.which("openssl") is None:
        return None
    words = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(RECORD), "-evp", cipher]
    said = subprocess.run(words, capture_output=True, text=True).stdout
    found = re.search(r"^\+F:\d+:[^:]*:([\d.]+)", said, re.MULTILINE)
    return float(found[1]) * 8e-9 if found else None
