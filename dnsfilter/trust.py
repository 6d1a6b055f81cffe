"""Whose certificates are believed: those of upstreams over TLS and HTTPS."""

from __future__ import annotations

import ssl
from functools import cached_property

from warren.fabric.core.errors import ConfigError


class Trust:
    """Authorities out of one PEM file, or the system's."""

    def __init__(self, path: str = "") -> None:
        """ConfigError: that is no such file."""
        self.path = path
        if path:
            self._context()

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """For DNS over TLS."""
        return self._context()

    @cached_property
    def https(self) -> ssl.SSLContext:
        """For DNS over HTTPS: HTTP/2 or nothing."""
        context = self._context()
        context.set_alpn_protocols(["h2"])
        return context

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.path or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"upstream_ca: {self.path}: {error.strerror or error}; give a PEM file") from None
