"""Serving beside a bare echo, and beside Feast's feature server and BentoML's HTTP server glued by hand."""
