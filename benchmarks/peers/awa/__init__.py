"""awa: a core in Rust with Python bindings."""
