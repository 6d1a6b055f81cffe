"""The switch: passes circuit packets between nodes, without being able to read them.

Slots, circuits and passes come in; events and counters go out. It knows nothing of flows, devices or routes: the
judge stands behind callables that are given to it.
"""
