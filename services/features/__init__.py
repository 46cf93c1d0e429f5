"""Features: turns events into windowed and latest values, for serving now and for training later."""
