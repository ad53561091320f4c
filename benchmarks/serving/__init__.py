"""Serving: our gateway beside its peers on one machine, the load generator in a process of its own."""
