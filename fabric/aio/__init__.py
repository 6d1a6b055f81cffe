"""Thin asyncio shells: they translate between sockets and cores, and decide nothing."""
