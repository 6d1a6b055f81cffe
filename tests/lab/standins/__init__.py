"""Stand for programs that can't run in a lab's host: systemctl (there is no systemd), pipx (there is no internet)."""
