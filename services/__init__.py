"""The five services; they share the library and messages, never code of each other."""
