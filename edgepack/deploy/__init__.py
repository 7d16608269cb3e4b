"""A release's life on one device: push, activate, rollback, status, history; and what the device is."""
