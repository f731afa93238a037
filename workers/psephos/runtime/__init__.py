"""How every role starts and runs until a signal."""
