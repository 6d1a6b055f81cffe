"""The connector: inside the private network, dials out only, opens no port, opens flows that a grant allows."""
