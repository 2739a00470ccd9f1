"""What every room uses: errors, random streams, files, array types, configured objects."""
