"""A server of models for other programs: one batch for all requests, the protocol, and pages for people."""
