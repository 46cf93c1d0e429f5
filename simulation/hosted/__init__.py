"""The five services without their sockets: each production's own machinery, wired to a broker and a store that fail."""
