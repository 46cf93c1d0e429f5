"""What shows a running loop: the collector, Prometheus with its alert rules, and Grafana's dashboards, all as code."""
