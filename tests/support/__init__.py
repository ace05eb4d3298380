"""Support for tests: each module is named for what it provides or stands in for."""
