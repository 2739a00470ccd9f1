"""Basic parts of every room: errors, random streams, files, array types, configured objects."""
