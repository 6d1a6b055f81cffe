"""One behaviour of the resolver a file; `dnsfilter/core/chain.py` puts them in order."""
