"""Keys, certificates, tokens, proofs and grants (protocol.md, section 4). Ed25519 everywhere."""
