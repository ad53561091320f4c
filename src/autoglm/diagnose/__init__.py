"""What does not fit on this machine, and the nearest set of versions that does."""
