"""The Twisted shell around one `Consensus`: threads, transports, Deferreds."""
