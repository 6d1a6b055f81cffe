"""Warren: a self-hosted Layer-4 private-network connector."""

__version__ = "0.1.0"
