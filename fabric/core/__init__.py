"""Pure: bytes and `now` in, events and bytes out. No sockets, no asyncio, no clock, no randomness of its own."""
