"""What several tests share; each module is named for what it stands in for."""
