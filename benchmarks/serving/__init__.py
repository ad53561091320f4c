"""Serving: our gateway beside its peers, the load generator in a process of its own."""
