"""Flights out of New York, 2013."""
