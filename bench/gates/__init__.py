"""What trainer's gates and monitor's release refuse and promote, over many seeds."""
