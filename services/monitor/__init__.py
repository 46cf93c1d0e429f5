"""Monitor: matches late labels, watches for drift, asks for models and owns their release."""
