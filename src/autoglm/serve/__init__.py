"""The gateway: one message, every protocol, the same answer."""
