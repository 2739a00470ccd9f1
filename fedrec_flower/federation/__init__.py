"""The runtime of a federation: server, clients and transports."""
