"""How events are written down: contracts, codecs, compatibility, and the registry that keeps them."""
