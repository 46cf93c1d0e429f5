"""Serving: answers predictions from the newest feature values by the released models, and logs every answer."""
