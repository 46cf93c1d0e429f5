"""Retraining policies side by side on one recorded history: what each would have cost and won; deploys nothing."""
