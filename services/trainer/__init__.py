"""Trainer: answers each retrain request with one model, published or refused."""
