"""The filtering resolver as a part of the edge: what it is told, and its life."""
