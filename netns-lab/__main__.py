"""`python -m warren.lab`."""

from warren.lab.cli import main

main()
