"""The agent: captures traffic for private networks on the device, ends it locally, carries each flow over QUIC."""
