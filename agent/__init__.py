"""The agent: captures traffic for private networks on the user's device, ends it locally, carries each flow over QUIC."""
