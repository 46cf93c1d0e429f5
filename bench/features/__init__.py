"""Features beside quixstreams and Feast's own store: streaming, freshness, the join, recovery, backfill, memory."""
