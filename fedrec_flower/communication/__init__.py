"""What is on the wire: messages, their validation, compression and secure aggregation."""
