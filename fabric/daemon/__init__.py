"""What every daemon has: settings, flags, a word for systemd, health and metrics, its unit, its diagnosis."""
