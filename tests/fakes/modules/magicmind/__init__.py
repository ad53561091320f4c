"""Part of the stand-in for MagicMind."""
