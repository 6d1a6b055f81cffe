"""The edge: judges every flow (judge/), switches packets it can't read (switch/), keeps who is who (store/, api/)."""
