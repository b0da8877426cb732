"""Listening sockets, HTTP and WebSocket on one connection, and the authentication hook that MediaMTX calls."""
