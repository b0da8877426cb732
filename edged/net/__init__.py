"""Bytes in and out: listening sockets, HTTP and WebSocket on one connection, and the hook that MediaMTX asks."""
