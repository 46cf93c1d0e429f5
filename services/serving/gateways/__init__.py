"""What serving reads from and writes to: topics, the spool, bundles and the online store; none of them decides anything."""
